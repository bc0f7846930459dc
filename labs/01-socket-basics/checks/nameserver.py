"""A small DNS server for the checks: it answers A and AAAA questions from a table (RFC 1035)."""

from __future__ import annotations

import select
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from types import TracebackType

HEADER = struct.Struct("!6H")  # id, flags, number of questions, answers, authorities, additions
TYPES = {1: 4, 28: 6}  # A and AAAA: the version of the addresses that answer them
ANSWER = 0x8580  # response, authoritative, recursion desired and available
NXDOMAIN = 3


class NameServer:
    """Answers on a bound UDP socket, in a thread of its own, while the `with` block runs.

    A name that is not in the zone gets NXDOMAIN; a name without an address of the family asked for
    gets an empty answer.
    """

    def __init__(self, udp: socket.socket, zone: Mapping[str, Sequence[str]]) -> None:
        self._udp = udp
        self._zone = zone
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.close()
        self._thread.join()
        self._stopped.close()
        self._udp.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._stopped], [], [])
            if self._stopped in ready:
                return
            query, client = self._udp.recvfrom(4096)
            reply = self._answer(query)
            if reply:
                self._udp.sendto(reply, client)

    def _answer(self, query: bytes) -> bytes | None:
        """The reply to one query; None for what is not a query with one question."""
        try:
            number, flags, questions, *_ = HEADER.unpack_from(query)
            name, end = read_name(query, HEADER.size)
            kind, _ = struct.unpack_from("!2H", query, end)
        except (struct.error, IndexError, UnicodeDecodeError):
            return None
        if flags & 0x8000 or questions != 1:
            return None
        question = query[HEADER.size : end + 4]
        if name not in self._zone:
            return HEADER.pack(number, ANSWER | NXDOMAIN, 1, 0, 0, 0) + question
        addresses = [ip_address(text) for text in self._zone[name]]
        records = [
            # 0xc00c points back to the name in the question.
            struct.pack("!3HIH", 0xC00C, kind, 1, 60, len(address.packed)) + address.packed
            for address in addresses
            if address.version == TYPES.get(kind)
        ]
        return HEADER.pack(number, ANSWER, 1, len(records), 0, 0) + question + b"".join(records)


def read_name(message: bytes, start: int) -> tuple[str, int]:
    """The name of a question, in lower case, and the offset behind it."""
    labels = []
    while length := message[start]:
        labels.append(message[start + 1 : start + 1 + length].decode("ascii").lower())
        start += 1 + length
    return ".".join(labels), start + 1
