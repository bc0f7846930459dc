"""`sockwork observe`: what happens between two programs, or in a capture, shown to a reader."""
