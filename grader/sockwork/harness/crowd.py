"""Many connections at once, without a wait for each."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable, Sequence

from sockwork.facts import Address
from sockwork.harness.connection import Connection, Receiving
from sockwork.harness.waiting import Outgoing

_EVENTS = 512  # taken from epoll at a time


class Echoes:
    """On each connection a token is sent and the same token is to come back."""

    def __init__(self, connections: Sequence[Connection], tokens: Sequence[bytes]) -> None:
        self.wrong: tuple[Connection, Receiving] | None = None  # the first that got something else
        self._epoll = select.epoll()
        self._sending: dict[int, Outgoing] = {}
        self._receiving: dict[int, tuple[Connection, Receiving]] = {}
        for connection, token in zip(connections, tokens, strict=True):
            self._add(connection, token)

    def _add(self, connection: Connection, token: bytes) -> None:
        descriptor = connection.socket.fileno()
        outgoing = Outgoing(descriptor, connection.socket.send)
        outgoing.add(token)
        self._sending[descriptor] = outgoing
        self._receiving[descriptor] = (connection, Receiving(connection.socket, len(token), token))
        self._epoll.register(descriptor, select.EPOLLIN | select.EPOLLOUT)

    @property
    def done(self) -> bool:
        return self.wrong is not None or not self._receiving

    @property
    def waiting(self) -> list[Connection]:
        """Those that have not got their whole token yet."""
        return [connection for connection, _ in self._receiving.values()]

    def advance(self) -> bool:
        ready = [] if self.done else self._epoll.poll(0, _EVENTS)
        moved = [self._serve(descriptor) for descriptor, _ in ready]
        return any(moved)

    def _serve(self, descriptor: int) -> bool:
        outgoing, (connection, goal) = self._sending[descriptor], self._receiving[descriptor]
        moved = outgoing.advance()
        moved = goal.advance() or moved
        if outgoing.done:
            self._epoll.modify(descriptor, select.EPOLLIN)
        if goal.differs or goal.end or outgoing.error:
            self.wrong = (connection, goal)
        if goal.done:
            self._epoll.unregister(descriptor)
            del self._receiving[descriptor]
        return moved

    def interests(self) -> Iterable[tuple[int, int]]:
        return [(self._epoll.fileno(), select.POLLIN)]

    def close(self) -> None:
        self._epoll.close()


class Connects:
    """Opens many connections, a few at a time: a listener's queue of open handshakes is short."""

    _AT_ONCE = 32

    def __init__(self, sockets: Iterable[socket.socket], address: Address) -> None:
        self.error = 0
        self._address = address
        self._left = list(sockets)
        self._pending: dict[int, socket.socket] = {}
        self._epoll = select.epoll()

    @property
    def done(self) -> bool:
        return self.error != 0 or self.missing == 0

    @property
    def missing(self) -> int:
        """How many are not connected yet."""
        return len(self._left) + len(self._pending)

    def advance(self) -> bool:
        if self.done:
            return False
        ready = self._epoll.poll(0, _EVENTS)
        for descriptor, _ in ready:
            self._complete(descriptor)
        started = self._left[: self._AT_ONCE - len(self._pending)]
        del self._left[: len(started)]
        for one in started:
            self._start(one)
        return bool(ready or started)

    def _start(self, one: socket.socket) -> None:
        error = one.connect_ex(self._address)
        self.error = self.error or (0 if error == errno.EINPROGRESS else error)
        self._pending[one.fileno()] = one
        self._epoll.register(one, select.EPOLLOUT)

    def _complete(self, descriptor: int) -> None:
        one = self._pending.pop(descriptor)
        self._epoll.unregister(descriptor)
        self.error = self.error or one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def interests(self) -> Iterable[tuple[int, int]]:
        return [(self._epoll.fileno(), select.POLLIN)]

    def close(self) -> None:
        self._epoll.close()
