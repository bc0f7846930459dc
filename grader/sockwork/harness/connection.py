"""The peer's end of one TCP connection with the program judged."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterable
from typing import Any, NoReturn

from sockwork.facts import Address, Packet, Row, address_text
from sockwork.harness.scene import Scene
from sockwork.harness.text import amount, byte_diff, difference, quoted
from sockwork.harness.waiting import Ending, Outgoing

_CHUNK = 1 << 18
_FLOOD = 1 << 26  # a program that sends more than this without an end is stopped
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds; see socket(7)


class Receiving:
    """Takes `count` bytes off a socket, never more; ends early at a byte that is not expected."""

    def __init__(
        self, descriptor: socket.socket, count: int, expected: bytes | None = None
    ) -> None:
        self.data = bytearray()
        self.end: str | None = None  # "FIN", or the name of the error
        self.differs = False
        self._socket = descriptor
        self._count = count
        self._expected = expected

    @property
    def done(self) -> bool:
        return len(self.data) >= self._count or self.differs or self.end is not None

    def advance(self) -> bool:
        if self.done:
            return False
        try:
            chunk = self._socket.recv(min(_CHUNK, self._count - len(self.data)))
        except BlockingIOError:
            return False
        except OSError as error:
            self.end = errno.errorcode.get(error.errno or 0, str(error))
            return True
        if not chunk:
            self.end = "FIN"
        self._compare(chunk)
        self.data += chunk
        return True

    def _compare(self, chunk: bytes) -> None:
        if self._expected is not None:
            at = len(self.data)
            self.differs = self._expected[at : at + len(chunk)] != chunk

    def interests(self) -> Iterable[tuple[int, int]]:
        return [(self._socket.fileno(), select.POLLIN)]


class Connecting:
    """The end of a connect(2) in progress; `error` is what SO_ERROR said."""

    def __init__(self, descriptor: socket.socket) -> None:
        self.done = False
        self.error = 0
        self._socket = descriptor

    def advance(self) -> bool:
        poller = select.poll()
        poller.register(self._socket, select.POLLOUT)
        if self.done or not poller.poll(0):
            return False
        self.done = True
        self.error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return True

    def interests(self) -> Iterable[tuple[int, int]]:
        return [(self._socket.fileno(), select.POLLOUT)]


class Connection:
    """One connection. `socket` is the plain non-blocking Python socket of the peer's end."""

    def __init__(
        self, scene: Scene, descriptor: socket.socket, remote: Address, *, host: str, number: int
    ) -> None:
        self.socket = descriptor
        self.number = number
        self.host = host
        self.remote = remote
        self.local: Address = descriptor.getsockname()[:2]
        self._scene = scene
        self._outgoing = Outgoing(descriptor.fileno(), descriptor.send)

    def __str__(self) -> str:
        return f"connection {self.number}"

    def _step(self, text: str) -> None:
        self._scene.step(f"{self.host}: {text}")

    # --- sending ----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Sends all of it, waiting for room."""
        self._step(f"sends {amount(len(data))} on {self}: {quoted(data, 24)}")
        self._outgoing.add(data)
        if self._scene.waiter.until(self._outgoing) is not Ending.REACHED or self._outgoing.error:
            self._cannot_send(len(data))

    def _cannot_send(self, count: int) -> NoReturn:
        error = self._outgoing.error
        left = self._outgoing.left
        if error:
            observed = f"Sending on {self} failed: {os.strerror(error.errno or 0)}."
        else:
            observed = f"{amount(left)} of {count:,} cannot be sent on {self}: nobody reads there."
        self.fail(observed, f"Everything sent on {self} is read.", _reason(error, "not-reading"))

    def send_some(self, data: bytes) -> int:
        """Sends until it would block; how many bytes that were."""
        sent = 0
        try:
            while sent < len(data):
                sent += self.socket.send(data[sent : sent + _CHUNK])
        except BlockingIOError:
            pass
        except OSError as error:
            self._outgoing.error = error
            self._cannot_send(len(data))
        self._step(f"sends {sent:,} of {amount(len(data))} on {self}, then it would block")
        return sent

    def send_in_background(self, data: bytes) -> None:
        """Sends as fast as the other end reads, during whatever the check does next."""
        self._step(f"sends {amount(len(data))} on {self} in the background")
        self._outgoing.add(data)
        self._outgoing.advance()
        self._scene.waiter.keep_going(self._outgoing)

    def finish(self) -> None:
        """Sends FIN behind everything sent so far; what comes is still read."""
        self._step(f"ends its sending side of {self} (FIN)")
        self._outgoing.finally_do(lambda: self.socket.shutdown(socket.SHUT_WR))
        if self._outgoing.error:
            self._cannot_send(0)

    def close(self) -> None:
        self._step(f"closes {self}")
        self.socket.close()

    def reset(self) -> None:
        """Ends the connection with RST."""
        self._step(f"resets {self} (RST)")
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    # --- receiving --------------------------------------------------------------------------------

    def expect(self, data: bytes) -> None:
        """Exactly these bytes come next."""
        self._step(f"is to receive {amount(len(data))} on {self}: {quoted(data, 24)}")
        self._expect(data)

    def expect_echo(self, data: bytes) -> None:
        """Sends `data` and receives the same, both at once: neither end has to store it all."""
        self.send_in_background(data)
        self.expect(data)

    def _expect(self, data: bytes) -> None:
        goal = Receiving(self.socket, len(data), data)
        ending = self._scene.waiter.until(goal)
        if bytes(goal.data) != data:
            self.received_wrong(goal, ending, data)

    def received_wrong(self, goal: Receiving, ending: Ending, data: bytes) -> NoReturn:
        """Fails the check: what the goal received is not `data`."""
        got = bytes(goal.data)
        expected = (
            f"{quoted(data, 60 if len(data) <= 60 else 24)} ({amount(len(data))}) comes on {self}."
        )
        if goal.differs:
            observed = f"What came on {self} differs: {difference(data, got)}."
            self.fail(observed, expected, "wrong-bytes", byte_diff(data, got))
        so_far = f"{len(got):,} of {amount(len(data))}"
        observed = f"{self._end_text(goal, ending)} after {so_far}."
        diff = byte_diff(data, got) if got else ()
        self.fail(observed, expected, _end_reason(goal, "missing-bytes"), diff)

    def expect_end(self, why: str = "") -> None:
        """FIN comes, with no byte and no RST before it."""
        self._step(f"is to see the end (FIN) of {self}")
        goal = Receiving(self.socket, 1)
        ending = self._scene.waiter.until(goal)
        if goal.end == "FIN":
            return
        expected = f"{self} ends with FIN{': ' + why if why else ''}."
        if goal.data:
            self._unexpected(goal, expected)
        observed = f"{self._end_text(goal, ending)}."
        self.fail(observed, expected, _end_reason(goal, "no-fin"))

    def expect_reset(self) -> None:
        """The other end resets the connection."""
        self._step(f"is to see {self} reset (RST)")
        goal = Receiving(self.socket, 1)
        ending = self._scene.waiter.until(goal)
        if goal.end != "ECONNRESET":
            observed = f"{self._end_text(goal, ending)}."
            self.fail(observed, f"{self} ends with RST.", "no-reset")

    def expect_nothing(self, why: str) -> None:
        """No byte and no end has come by the time that nothing moves any more, or the deadline."""
        self._step(f"is to receive nothing on {self}: {why}")
        goal = Receiving(self.socket, 1)
        self._scene.waiter.quiet(goal)
        expected = f"Nothing comes on {self}: {why}."
        if goal.data:
            self._unexpected(goal, expected)
        if goal.end:
            observed = f"{self._end_text(goal, Ending.REACHED)}."
            self.fail(observed, expected, _end_reason(goal, ""))

    def _unexpected(self, goal: Receiving, expected: str) -> NoReturn:
        rest = Receiving(self.socket, 64)
        while rest.advance():  # ends: at most 64 bytes, an end, or nothing more at the moment
            pass
        came = bytes(goal.data + rest.data)
        observed = f"Bytes came on {self} that nobody asked for: {quoted(came)}."
        self.fail(observed, expected, "unexpected-bytes")

    def read_to_end(self) -> bytes:
        """Everything until FIN; RST fails."""
        self._step(f"reads {self} to its end")
        goal = Receiving(self.socket, _FLOOD)
        ending = self._scene.waiter.until(goal)
        if goal.end != "FIN":
            observed = f"{self._end_text(goal, ending)} after {amount(len(goal.data))}."
            self.fail(observed, f"{self} ends with FIN.", _end_reason(goal, "no-fin"))
        return bytes(goal.data)

    def _end_text(self, goal: Receiving, ending: Ending) -> str:
        if goal.end == "FIN":
            return f"{self} ended with FIN"
        if goal.end == "ECONNRESET":
            return f"{self} was reset (RST)"
        if goal.end:
            return f"{self} broke with {goal.end}"
        if goal.data and goal.done:
            return f"{self} has bytes"
        nothing = "nothing can move any more" if ending is Ending.STUCK else "nothing came in time"
        return f"{nothing} on {self}"

    # --- barriers ---------------------------------------------------------------------------------

    def consumed(self) -> None:
        """Waits until the program has read everything that was sent."""
        self._barrier(
            "consumed", self.remote, self.local, "target", "is read by the program", "not-reading"
        )

    def delivered(self) -> None:
        """Waits until everything sent is acknowledged by the target's kernel."""
        what = "is acknowledged by the target"
        self._barrier("delivered", self.local, self.remote, self.host, what, "not-delivered")

    def _barrier(
        self, name: str, local: Address, remote: Address, host: str, what: str, reason: str
    ) -> None:
        self._step(f"waits until all it sent on {self} {what}")
        ends = {"host": host, "local": local, "remote": remote}
        if not self._scene.waiter.ask(name, ends).held:
            row = self.target_row()
            unread = f"{amount(row.rqueue)} unread" if row else "bytes"
            self.fail(
                f"{self} holds {unread} that stay there.",
                f"All that was sent on {self} {what}.",
                reason,
            )

    def target_state(self, *names: str) -> str:
        """Waits until the program's end is in one of these TCP states; "NONE": it has no row."""
        return self._state("target", self.remote, self.local, names)

    def state(self, *names: str) -> str:
        """The same for our own end."""
        return self._state(self.host, self.local, self.remote, names)

    def _state(self, host: str, local: Address, remote: Address, names: tuple[str, ...]) -> str:
        wanted = " or ".join(names)
        self._step(f"waits until {self} is in {wanted} at {host}")
        ends: dict[str, Any] = {"host": host, "local": local, "remote": remote, "in": names}
        seen = self._scene.waiter.ask("state", ends)
        state = str(seen.facts.get("state") or "NONE")
        if not seen.held:
            self.fail(
                f"At {host} {self} is in {state} and stays there.",
                f"It comes into {wanted}.",
                "wrong-state",
            )
        return state

    def target_row(self) -> Row | None:
        """The program's end in the target's socket table."""
        return self._row("target", self.remote, self.local)

    def _row(self, host: str, local: Address, remote: Address) -> Row | None:
        rows = self._scene.rows(host)
        return next((row for row in rows if (row.local, row.remote) == (local, remote)), None)

    def packets(self) -> list[Packet]:
        """Its packets in both directions, as the link saw them."""
        ends = {self.local, self.remote}
        return [p for p in self._scene.packets() if {p.source, p.destination} == ends]

    # --- failures ---------------------------------------------------------------------------------

    def fail(
        self, observed: str, expected: str, reason: str, evidence: Iterable[str] = ()
    ) -> NoReturn:
        """Fails the check, with what the kernel and the link know of this connection."""
        rows = [self._row_text(), *self._not_accepted()]
        shown = [*evidence, *rows, *self._scene.circumstances()]
        shown += self._scene.conversation(self.local, self.remote)
        sentences = (observed[:1].upper() + observed[1:], expected[:1].upper() + expected[1:])
        self._scene.fail(*sentences, reason=reason, evidence=shown)

    def _not_accepted(self) -> list[str]:
        """The listener of this connection, if connections wait there."""
        rows = self._scene.rows("target")
        waiting = [row for row in rows if row.state == "LISTEN" and row.rqueue > 0]
        return [row.text for row in waiting if row.local_port == self.remote[1]]

    def _row_text(self) -> str:
        row = self.target_row()
        ends = f"{address_text(self.remote)} -> {address_text(self.local)}"
        return f"at target  {row.text if row else ends + '  has no row: the connection is gone'}"


def _reason(error: OSError | None, otherwise: str) -> str:
    if error is None:
        return otherwise
    return "reset" if error.errno in (errno.ECONNRESET, errno.EPIPE) else "broken"


def _end_reason(goal: Receiving, otherwise: str) -> str:
    words = {None: otherwise, "FIN": "ended-early", "ECONNRESET": "reset"}
    return words.get(goal.end, "broken")
