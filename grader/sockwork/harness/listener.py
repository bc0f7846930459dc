"""A listening socket of the harness, for the labs in which the program judged is a client."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from typing import NoReturn

from sockwork.facts import Address, address_text
from sockwork.harness.connection import Connection
from sockwork.harness.scene import Scene


class Accepting:
    """One accept(2) that waits for its connection."""

    def __init__(self, listener: socket.socket) -> None:
        self.accepted: socket.socket | None = None
        self.remote: Address = ("", 0)
        self._listener = listener

    @property
    def done(self) -> bool:
        return self.accepted is not None

    def advance(self) -> bool:
        if self.done:
            return False
        try:
            self.accepted, remote = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        self.remote = (remote[0], remote[1])
        self.accepted.setblocking(False)
        return True

    def interests(self) -> Iterable[tuple[int, int]]:
        return [(self._listener.fileno(), select.POLLIN)]


Adopt = Callable[[socket.socket, Address, str], Connection]


class Listener:
    """Accepts the connections that the program judged makes."""

    def __init__(self, scene: Scene, listening: socket.socket, host: str, adopt: Adopt) -> None:
        self.socket = listening
        self.host = host
        self.address: Address = listening.getsockname()[:2]
        self._scene = scene
        self._adopt = adopt

    @property
    def port(self) -> int:
        return self.address[1]

    def accept(self) -> Connection:
        """Waits for the next connection."""
        self._scene.step(f"{self.host}: is to accept a connection at {address_text(self.address)}")
        goal = Accepting(self.socket)
        self._scene.waiter.until(goal)
        if goal.accepted is None:
            self._fail()
        return self._adopt(goal.accepted, goal.remote, self.host)

    def _fail(self) -> NoReturn:
        rows = [row.text for row in self._scene.rows("target") if row.owners]
        self._scene.fail(
            f"Nobody connects to {address_text(self.address)}.",
            f"{self._scene.check.program} connects to {address_text(self.address)}.",
            reason="no-connection",
            evidence=[*self._scene.circumstances(), *rows[:4], *self._attempts()],
        )

    def _attempts(self) -> list[str]:
        packets = [p for p in self._scene.packets() if p.from_ == "target" and "SYN" in p.flags]
        return [f"packet {p.n}  {p.from_}: {p.summary}" for p in packets[-2:]]

    def close(self) -> None:
        self._scene.step(f"{self.host}: stops listening at {address_text(self.address)}")
        self.socket.close()
