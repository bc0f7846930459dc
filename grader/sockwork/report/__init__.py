"""What users read: made from outcomes and results, never from a socket."""
