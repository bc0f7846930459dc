"""What the rules look at: one failed check with its trace, put in order by run and by socket.

A `Case` is made once for a failure and never changed. What the trace does not hold (no calls, no
packets) is empty here, so that a rule that needs it finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath

from sockwork.facts import Address, Status
from sockwork.model import Check, Failure, Lab, Outcome
from sockwork.trace import Call, Packet, ProcessEvent, Step, Trace

READS = frozenset(("read", "readv", "recvfrom", "recvmsg", "recvmmsg"))
WRITES = frozenset(("write", "writev", "sendto", "sendmsg", "sendmmsg", "sendfile", "splice"))
ACCEPTS = frozenset(("accept", "accept4"))
WAITS = frozenset(("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait"))
# The kernel makes such a call again by itself: for the program it has not returned.
_RESTARTED = frozenset(("ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND", "ERESTART_RESTARTBLOCK"))


def unfinished(call: Call) -> bool:
    """It was still waiting when the trace ends, or the kernel starts it again."""
    return not call.returned or call.error in _RESTARTED


@dataclass
class Stream:
    """One TCP connection as the program knows it, from `accept` or `connect` on."""

    inode: int
    run: int
    opened: Call
    local: Address | None = None
    remote: Address | None = None
    calls: list[Call] = field(default_factory=list)
    incoming: list[Packet] = field(default_factory=list)  # from the other end, that came through
    outgoing: list[Packet] = field(default_factory=list)
    holders: dict[int, set[int]] = field(default_factory=dict)  # descriptors still open, by process

    @property
    def reads(self) -> list[Call]:
        return [call for call in self.calls if call.name in READS]

    @property
    def writes(self) -> list[Call]:
        return [call for call in self.calls if call.name in WRITES]

    @property
    def received(self) -> int:
        return sum(call.result or 0 for call in self.reads)

    @property
    def sent(self) -> int:
        return sum(call.result or 0 for call in self.writes)

    @property
    def end_read(self) -> Call | None:
        """The first read that returned 0: the program has been told of the FIN."""
        return next((c for c in self.reads if c.result == 0 and c.argument("size") != 0), None)

    @property
    def closes(self) -> list[Call]:
        return [call for call in self.calls if call.name == "close" and call.result == 0]

    @property
    def shut(self) -> Call | None:
        """The call that ended the program's sending side, without close."""
        return next(
            (c for c in self.calls if c.name == "shutdown" and _how(c) in ("SHUT_WR", "SHUT_RDWR")),
            None,
        )

    @property
    def open(self) -> bool:
        return any(self.holders.values())

    @property
    def waiting(self) -> Call | None:
        """The call on it that has not returned."""
        return next((call for call in reversed(self.calls) if unfinished(call)), None)

    def failed(self, *errors: str) -> Call | None:
        return next((call for call in self.calls if call.error in errors), None)

    def set(self, option: str) -> Call | None:
        return next(
            (c for c in self.calls if c.name == "setsockopt" and option in _values(c)), None
        )

    def came(self, before: int | None = None) -> int:
        """The bytes that the other end had delivered by the time `before`."""
        ends = [
            packet.seq + packet.length - 1
            for packet in self.incoming
            if packet.length and (before is None or packet.time <= before)
        ]
        return max(ends, default=0)

    def fin(self, packets: Iterable[Packet]) -> Packet | None:
        return next((packet for packet in packets if "FIN" in packet.flags), None)

    def rst(self, packets: Iterable[Packet]) -> Packet | None:
        return next((packet for packet in packets if "RST" in packet.flags), None)


@dataclass
class Listener:
    """A TCP socket of the program that was bound or listens."""

    inode: int
    run: int
    opened: Call
    calls: list[Call] = field(default_factory=list)
    holders: dict[int, set[int]] = field(default_factory=dict)

    def call(self, *names: str) -> Call | None:
        """Its first call of one of these names."""
        return next((call for call in self.calls if call.name in names), None)


class Case:
    """A failed check, as the rules see it."""

    def __init__(self, outcome: Outcome, failure: Failure, lab: Lab, trace: Trace) -> None:
        self.outcome = outcome
        self.failure = failure
        self.lab = lab
        self.trace = trace
        self.check: Check = outcome.check
        self.calls = _own(trace)
        self.packets = [p for p in trace.of(Packet) if p.transport == "tcp"]
        self.processes = trace.of(ProcessEvent)
        self.steps = trace.of(Step)
        self.streams: list[Stream] = []
        self.sockets: list[Listener] = []  # TCP sockets made by socket(2), connected ones as well
        self._follow()

    @property
    def program(self) -> str:
        return self.check.program

    @cached_property
    def role(self) -> str:
        roles = [each.role for each in self.lab.programs if each.name == self.program]
        return roles[0] if roles else ""

    @property
    def server(self) -> bool:
        return self.role == "server"

    # --- runs -------------------------------------------------------------------------------------

    @cached_property
    def runs(self) -> list[int]:
        return [event.run for event in self.processes if event.event == "start"]

    @property
    def last(self) -> int:
        """The run that was started last: the one a failure speaks of when runs follow each other."""
        return self.runs[-1] if self.runs else 0

    def arguments(self, run: int) -> tuple[str, ...]:
        """What stood behind the name of the program on its command line."""
        start = next((e for e in self.processes if e.event == "start" and e.run == run), None)
        argv = start.argv if start else ()
        at = next((n for n, word in enumerate(argv) if PurePath(word).stem == self.program), 0)
        return tuple(argv[at + 1 :])

    def argument(self, run: int, name: str) -> str:
        """One argument by its name in lab.toml; empty when it was not given."""
        names = next((p.arguments for p in self.lab.programs if p.name == self.program), ())
        words = dict(zip(names, self.arguments(run)))
        return words.get(name, "")

    def port(self, run: int) -> int | None:
        """The PORT it was given, if that is a number."""
        text = self.argument(run, "PORT") or self.argument(run, "SERVICE")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None

    def ended(self, run: int) -> Status | None:
        """How the main process of a run ended."""
        main = self.main(run)
        for event in self.processes:
            status = event.status
            if event.run == run and event.pid == main and status and not status.running:
                return status
        return None

    def main(self, run: int) -> int | None:
        return next((e.pid for e in self.processes if e.run == run and e.pid is not None), None)

    def calls_of(self, run: int) -> list[Call]:
        return [call for call in self.calls if call.run == run]

    def named(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call.name in names]

    def _written(self, run: int, fd: int) -> bytes:
        return b"".join(
            call.bytes.head
            for call in self.calls
            if call.run == run and call.name in WRITES and call.fd == fd and call.bytes
        )

    def printed(self, run: int) -> bytes:
        """The stdout of a run; of a later run the first 48 bytes of each write."""
        first = bool(self.runs) and run == self.runs[0]
        return self.outcome.stdout if first else self._written(run, 1)

    def said(self, run: int) -> str:
        """The stderr of a run, in the same way."""
        if self.runs and run == self.runs[0]:
            return self.outcome.stderr
        return self._written(run, 2).decode(errors="replace")

    def gave_up_after(self, call: Call) -> Call | None:
        """The exit with a failure that followed `call` in its process, with no further call that
        made progress on a socket in between."""
        for later in self.calls:
            if later.time <= call.time or later.pid != call.pid:
                continue
            if later.name == "exit_group":
                return later if later.argument("status") != 0 or self.server else None
            if later.name in ACCEPTS | READS and later.socket and later.result is not None:
                return None
        return None

    # --- sockets ----------------------------------------------------------------------------------

    @property
    def listeners(self) -> list[Listener]:
        return [s for s in self.sockets if s.call("listen") or s.call("bind")]

    def stream_at(self, inode: int) -> Stream | None:
        return next((stream for stream in self.streams if stream.inode == inode), None)

    def waiting_in(self, *names: str) -> list[Call]:
        """The calls of these names that have not returned."""
        return [call for call in self.calls if call.name in names and unfinished(call)]

    def _follow(self) -> None:
        """Puts calls and packets to their sockets, and replays the descriptor tables."""
        streams: dict[int, Stream] = {}
        sockets: dict[int, Listener] = {}
        for call in self.calls:
            if call.socket and call.socket.transport == "tcp":
                _put(call, streams, sockets)
            if call.accepted and call.accepted.transport == "tcp":
                stream = streams.setdefault(
                    call.accepted.inode, Stream(call.accepted.inode, call.run, call)
                )
                stream.local, stream.remote = call.accepted.local, call.accepted.remote
        for inode, pids in _holders(self.calls, self.processes).items():
            for owner in (streams.get(inode), sockets.get(inode)):
                if owner:
                    owner.holders = pids
        self.streams = list(streams.values())
        by_ends: dict[tuple[Address | None, Address | None], list[Stream]] = {}
        for stream in self.streams:
            by_ends.setdefault((stream.local, stream.remote), []).append(stream)
        self.sockets = list(sockets.values())
        for packet in self.packets:
            for stream in by_ends.get((packet.destination, packet.source), ()):
                if not packet.lost:
                    stream.incoming.append(packet)
            for stream in by_ends.get((packet.source, packet.destination), ()):
                stream.outgoing.append(packet)


def _put(call: Call, streams: dict[int, Stream], sockets: dict[int, Listener]) -> None:
    assert call.socket
    inode = call.socket.inode
    if call.name == "socket":
        sockets[inode] = Listener(inode, call.run, call)
    if call.name == "connect" and call.error in (None, "EINPROGRESS"):
        streams.setdefault(inode, Stream(inode, call.run, call))
    if inode in streams:
        stream = streams[inode]
        stream.calls.append(call)
        stream.local = call.socket.local or stream.local
        stream.remote = call.socket.remote or stream.remote
    if inode in sockets:
        sockets[inode].calls.append(call)


def _own(trace: Trace) -> list[Call]:
    """The calls of the programs in the order in which they began, without those by which the
    dynamic loader and the sanitizers start a process."""
    started: set[int] = set()
    calls = []
    for call in trace.of(Call):
        if call.pid in started or call.at or (call.socket and call.name == "socket"):
            started.add(call.pid)
        if call.pid in started or call.fd in (0, 1, 2) or call.name == "exit_group":
            calls.append(call)
    return calls


def _holders(
    calls: Iterable[Call], processes: Iterable[ProcessEvent]
) -> dict[int, dict[int, set[int]]]:
    """For each socket the processes that still have it open at the end, with their descriptors."""
    tables: dict[int, dict[int, int]] = {}
    born = {e.child: e for e in processes if e.event == "fork" and e.child is not None}
    gone = {e.pid for e in processes if e.event == "exit"}

    def table(pid: int) -> dict[int, int]:
        if pid not in tables:
            parent = born.get(pid)
            tables[pid] = dict(tables.get(parent.pid or 0, {})) if parent else {}
        return tables[pid]

    events: list[tuple[int, int | Call]] = [(call.time, call) for call in calls]
    events += [(event.time, child) for child, event in born.items() if child is not None]
    # What an exec keeps is known only when it is used again (FD_CLOEXEC).
    events += [(e.time, -e.pid) for e in processes if e.event == "exec" and e.pid in born]
    events.sort(key=lambda event: event[0])
    for _, event in events:
        if isinstance(event, int):
            table(abs(event))  # copied from the parent as it is at this moment
            if event < 0:
                tables[-event] = {}
            continue
        _replay(event, table(event.pid))
    found: dict[int, dict[int, set[int]]] = {}
    for pid, descriptors in tables.items():
        for fd, inode in descriptors.items():
            if pid not in gone:
                found.setdefault(inode, {}).setdefault(pid, set()).add(fd)
    return found


def _replay(call: Call, table: dict[int, int]) -> None:
    if call.error is not None:
        return
    if call.name == "close" and call.fd is not None:
        table.pop(call.fd, None)
    elif call.accepted and call.result is not None:
        table[call.result] = call.accepted.inode
    elif call.socket and call.result is not None and call.name in ("socket", "dup", "dup2", "dup3"):
        table[call.result] = call.socket.inode
    elif call.socket and call.fd is not None:
        table[call.fd] = call.socket.inode


def _how(call: Call) -> str:
    return str(call.argument("how"))


def _values(call: Call) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument.value, str):
            yield argument.value
