"""All rules, one module a subject. Importing this package enters them."""

from sockwork.diagnosis.rules import (
    accepting,
    addresses,
    arguments,
    bytestream,
    ending,
    failing,
    processes,
    waiting,
)

__all__ = [
    "accepting",
    "addresses",
    "arguments",
    "bytestream",
    "ending",
    "failing",
    "processes",
    "waiting",
]
