"""Sockwork: graded socket-programming labs, judged by kernel state and packets."""

__version__ = "0.1.0"
