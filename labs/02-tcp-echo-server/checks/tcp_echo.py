"""What several checks of this lab do."""

from __future__ import annotations

from sockwork.harness import Bed, Connection, Run


def line(bed: Bed, size: int = 16) -> bytes:
    """One line of exactly `size` bytes. Most checks send whole lines, one at a time, so that a
    server that works line by line is caught by the checks about lines and by no other."""
    return bed.token(size - 1) + b"\n"


def round_trip(bed: Bed, connection: Connection) -> None:
    """One line there and back: the server has accepted this connection and serves it."""
    message = line(bed)
    connection.send(message)
    connection.expect(message)


def served(bed: Bed, server: Run) -> Connection:
    """A new client that has had one line back."""
    connection = bed.connect(server)
    round_trip(bed, connection)
    return connection


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
