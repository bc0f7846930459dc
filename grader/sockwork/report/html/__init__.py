"""One run as one HTML file: no script but its own, no request to anywhere."""
