"""Client of the testbed's control protocol (grader/testbed/PROTOCOL.md), one testbed an instance.

Whatever goes wrong between us and the testbed is a TestbedError: a fault of ours or of the machine,
never of the program judged. No call can hang: a reply that does not come in time ends the testbed.
Not thread-safe; used by one worker.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, IO

from sockwork import paths
from sockwork.facts import Fields, Host, Packet, Process, Row, Status

_MESSAGE_LIMIT = 1 << 17  # larger replies come as a file
_REPLY_LIMIT = (
    20.0  # seconds for a verb that answers at once, and on top of a barrier's own deadline
)
_EXIT_LIMIT = 5.0
_BATCH = 64  # requests sent before their replies are taken


class TestbedError(Exception):
    """The testbed refused, died or did not answer. `code` is the protocol's, or "testbed"."""

    __test__ = False  # pytest: not a test class

    def __init__(self, message: str, code: str = "testbed") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Reply:
    """The answer to one request, with the descriptors that came with it."""

    fields: dict[str, Any]
    descriptors: list[int] = field(default_factory=list)

    def take_descriptor(self) -> int:
        if not self.descriptors:
            raise TestbedError("the testbed sent no descriptor with its reply")
        return self.descriptors.pop(0)

    def discard(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())

    def attached(self) -> bytes:
        """The large result, from the memory file that rides on the reply."""
        return _content(self.take_descriptor())


def _content(descriptor: int) -> bytes:
    """A whole file; its offset, which the testbed shares, is left alone. Closes the descriptor."""
    try:
        size = os.fstat(descriptor).st_size
        parts: list[bytes] = []
        while part := os.pread(descriptor, size, sum(map(len, parts))):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Seen:
    """How a barrier ended: whether it held, and the facts it compared then."""

    held: bool
    facts: dict[str, Any]

    @staticmethod
    def parse(fields: Mapping[str, Any]) -> Seen:
        return Seen(bool(fields.get("held")), dict(fields.get("seen") or {}))


@dataclass(frozen=True)
class Opened:
    """What `open` gave: the tier, what it can do, the hosts and the zero of the clock."""

    tier: str
    capabilities: frozenset[str]
    hosts: dict[str, Host]
    origin: int  # CLOCK_MONOTONIC at time 0


@dataclass(frozen=True)
class Started:
    """A program that was started; `stdin` is the write end of the pipe it reads from, if any."""

    run: int
    pid: int
    stdin: int | None


def default_command() -> Path:
    """The testbed binary: where the launcher says, or where it builds it."""
    usual = paths.ROOT / "build" / "release" / "grader" / "testbed" / "sockwork-testbed"
    return Path(os.environ.get("SOCKWORK_TESTBED", usual))


class Testbed:
    """One testbed process. Close it in any case; closing twice does nothing."""

    __test__ = False

    def __init__(
        self, command: Path | None = None, *, tier: str = "auto", scale: float = 1.0
    ) -> None:
        self._scale = scale
        self._next = 1
        self._over = False
        self._forgotten: set[int] = set()
        self._replies: dict[int, Reply] = {}
        self._buffer = bytearray(_MESSAGE_LIMIT)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limit = struct.pack("@ll", int(_REPLY_LIMIT * scale), 0)
        self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._log: IO[bytes] = tempfile.TemporaryFile()
        with theirs:
            self._process = self._start(command or default_command(), theirs.fileno(), tier)

    def _start(self, command: Path, control: int, tier: str) -> subprocess.Popen[bytes]:
        argv = [str(command), "serve", "--control-fd", str(control), "--tier", tier]
        try:
            # A process group of its own: Ctrl-C is for us, we then end the testbed in order.
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(control,),
                process_group=0,
            )
        except OSError as error:
            self._control.close()
            raise TestbedError(f"cannot start {command}: {error.strerror}") from error

    # --- messages ---------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Readable when a reply may have come."""
        return self._control.fileno()

    def begin(
        self, verb: str, fields: Fields | None = None, descriptors: Sequence[int] = ()
    ) -> int:
        """Sends a request and returns its id; take() gets the reply."""
        number = self._next
        self._next += 1
        message = json.dumps({"id": number, "do": verb, **(fields or {})}).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())]
        self._receive_all()  # so that neither side ever waits for room
        try:
            self._control.sendmsg([message], rights if descriptors else [])
        except BlockingIOError as error:
            self.kill()
            raise TestbedError("the testbed took no request in time and was ended") from error
        except OSError as error:
            raise self._death() from error
        return number

    def take(self, number: int, seconds: float = 0.0) -> Reply | None:
        """The reply to request `number` if it comes within `seconds`."""
        until = time.monotonic() + seconds
        self._receive_all()
        while number not in self._replies:
            if self._over:
                raise self._death()
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._wait_readable(left)
            self._receive_all()
        reply = self._replies.pop(number)
        error = reply.fields.get("error")
        if error:
            reply.discard()
            raise TestbedError(str(error.get("message")), str(error.get("code")))
        return reply

    def forget(self, number: int) -> None:
        """The reply to this request is of no use any more."""
        reply = self._replies.pop(number, None)
        if reply:
            reply.discard()
        else:
            self._forgotten.add(number)

    def call(
        self, verb: str, fields: Fields | None = None, descriptors: Sequence[int] = ()
    ) -> Reply:
        return self.await_reply(self.begin(verb, fields, descriptors))

    def await_reply(self, number: int, beyond: float = 0.0) -> Reply:
        """The reply, or the end of the testbed: it owes one within the limit (after `beyond`)."""
        reply = self.take(number, beyond + _REPLY_LIMIT * self._scale)
        if reply is None:
            self.kill()
            raise TestbedError("the testbed did not answer in time and was ended")
        return reply

    def _wait_readable(self, seconds: float) -> None:
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.poll(max(0.0, seconds) * 1000)

    def _receive_all(self) -> None:
        while self._receive_one():
            pass

    def _receive_one(self) -> bool:
        space = socket.CMSG_SPACE(64 * 4)
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            size, ancillary, got, _ = self._control.recvmsg_into([self._buffer], space, flags)
        except BlockingIOError:
            return False
        except OSError:
            size = 0
        if size == 0:
            self._over = True  # what came before the end still counts
            return False
        reply = self._parse(self._buffer[:size], got, ancillary)
        number = int(reply.fields.get("id", 0))
        if number in self._forgotten:
            self._forgotten.discard(number)
            reply.discard()
        else:
            self._replies[number] = reply
        return True

    def _parse(
        self, message: bytes, flags: int, ancillary: Iterable[tuple[int, int, bytes]]
    ) -> Reply:
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise TestbedError("a message of the testbed was cut short")
        try:
            fields = json.loads(message)
        except ValueError as error:
            raise TestbedError("the testbed sent something that is not JSON") from error
        reply = Reply(fields, descriptors.tolist())
        if fields.get("reply_attached"):
            reply.fields = json.loads(reply.attached())
        return reply

    def _death(self) -> TestbedError:
        try:
            status = self._process.wait(_EXIT_LIMIT)
        except subprocess.TimeoutExpired:
            return TestbedError("the testbed closed its control socket")
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        said = f": {lines[-1]}" if lines else ""
        return TestbedError(f"the testbed ended with status {status}{said}")

    def kill(self) -> None:
        """Ends the testbed at once; the programs it started end with it."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Lets the testbed end in order, without waiting for it."""
        self._control.close()
        for reply in self._replies.values():
            reply.discard()
        self._replies.clear()

    def close(self) -> None:
        """Ends the testbed in order and waits for it, so that nothing of it is left."""
        self.release()
        try:
            self._process.wait(_EXIT_LIMIT * self._scale)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()

    # --- verbs ------------------------------------------------------------------------------------

    def opened(self, request: int) -> Opened:
        """The reply to an `open` that was sent with begin()."""
        reply = self.await_reply(request).fields
        hosts = {name: Host.parse(name, host) for name, host in reply["hosts"].items()}
        origin = int(reply["clock"]["monotonic_ns"])
        return Opened(reply["tier"], frozenset(reply["capabilities"]), hosts, origin)

    def make_sockets(self, count: int, host: str, family: str, kind: str) -> list[socket.socket]:
        """Non-blocking sockets inside a host; `family` inet or inet6, `kind` stream or dgram."""
        wanted = {"host": host, "family": family, "type": kind, "nonblocking": True}
        made: list[socket.socket] = []
        while len(made) < count:  # in batches: a round trip each would cost a second for 10,000
            batch = min(_BATCH, count - len(made))
            requests = [self.begin("socket", wanted) for _ in range(batch)]
            made += [self._adopt(self.await_reply(request)) for request in requests]
        return made

    def _adopt(self, reply: Reply) -> socket.socket:
        made = socket.socket(fileno=reply.take_descriptor())
        made.setblocking(False)
        return made

    def run(self, fields: Fields, descriptors: Sequence[int] = ()) -> Started:
        reply = self.call("run", fields, descriptors)
        stdin = reply.take_descriptor() if fields.get("stdin") == "pipe" else None
        if stdin is not None:
            os.set_blocking(stdin, False)
        return Started(reply.fields["run"], reply.fields["pid"], stdin)

    def status(self, run: int) -> Status:
        reply = self.call("wait", {"for": "exited", "run": run, "deadline": 0})
        return Status.parse(Seen.parse(reply.fields).facts["status"])

    def rows(self, host: str, transport: str) -> list[Row]:
        reply = self.call("rows", {"host": host, "transport": transport})
        return [Row.parse(row) for row in reply.fields["rows"]]

    def processes(self, run: int) -> list[Process]:
        reply = self.call("processes", {"run": run})
        return [Process.parse(process) for process in reply.fields["processes"]]

    def packets(self) -> list[Packet]:
        return [Packet.parse(packet) for packet in json.loads(self.call("packets").attached())]

    def output(self, run: int, stream: str) -> bytes:
        return self.call("output", {"run": run, "stream": stream, "from": 0}).attached()

    def limit_descriptors(self, run: int, limit: int) -> None:
        """Sets RLIMIT_NOFILE of every process of the run."""
        if not self.call("limit", {"run": run, "nofile": limit}).fields["previous"]:
            raise TestbedError("the limit of descriptors could not be set")

    def perturb(self, run: int, calls: Sequence[str], **change: object) -> None:
        """Changes what calls of a traced run do: `cap`, or `error`, with `first` and `times`."""
        self.call("perturb", {"run": run, "calls": list(calls), **change})

    def attachment(self, verb: str) -> bytes:
        return self.call(verb).attached()

    def end(self) -> None:
        """Ends every run. A link that lost a frame, for whatever cause, proves nothing."""
        fields = self.call("end").fields
        if fields["lost"]:
            where = ", ".join(f"{count} {place}" for place, count in fields["lost_where"].items())
            raise TestbedError(f"the link lost {fields['lost']} frames ({where})")
