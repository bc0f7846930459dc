"""Two programs in a testbed: started in order, followed while they run, ended in order."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from sockwork.facts import Host, Status
from sockwork.observe.timeline import Timeline
from sockwork.report.style import Style
from sockwork.testbed import Opened, Started, Testbed, TestbedError

TARGET, PEER = "target", "peer"
# Bounds of what is kept: each tells when it is reached. They hold some ten thousand packets and
# calls, more than a figure can show.
CAPTURE: Final = 32 << 20
RECORDS: Final = 60_000
OUTPUT: Final = 256 << 10  # of each stream
_STREAMS: Final = ("stdout", "stderr")
_LOOK: Final = 0.1  # seconds between two looks for the reader
_PATIENCE: Final = 10.0  # seconds for a program to listen or rest, and to rest at the end
_MERCY: Final = 3.0  # seconds to end after SIGTERM
_FOREVER: Final = 1e6
_RESTS_MS: Final = 250  # nothing happens for so long: it waits for somebody


@dataclass(frozen=True)
class Plan:
    """What to run and how to look at it."""

    argv: Sequence[str]
    peer: str | None
    rules: Sequence[Mapping[str, Any]]
    seconds: float | None
    tier: str
    quiet: bool
    all_calls: bool


@dataclass
class Program:
    """One of the programs; `stopped`: we ended it."""

    host: str
    words: str
    run: int
    status: Status = Status("running")
    stopped: bool = False
    output: dict[str, bytes] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """What is left of a run."""

    trace: bytes
    capture: bytes | None
    tier: str
    programs: tuple[Program, ...]
    stats: Mapping[str, Any]
    interrupted: bool


class Interrupts:
    """Ctrl-C ends the observation in order; a second one ends it as everywhere."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, *exc: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(signal.SIGINT, self._before)


class Session:
    """One observation. Close the testbed in any case."""

    def __init__(
        self, testbed: Testbed, plan: Plan, style: Style, show: Callable[[Iterable[str]], None]
    ) -> None:
        self._testbed = testbed
        self._plan = plan
        self._show = show
        self._hosts: dict[int, str] = {}
        self._timeline = Timeline(style, self._hosts, plan.all_calls)
        self._programs: list[Program] = []
        self._next = 0  # record of the trace
        self._looked = 0.0
        self._held = False  # whether the barrier that ended first did so by holding
        self._until = time.monotonic() + (plan.seconds or _FOREVER)

    def observe(self) -> Observed:
        """Runs the programs to their end. Raises TestbedError; its code "exec": cannot be started."""
        opened = self._open()
        with Interrupts() as interrupts:
            self._interrupts = interrupts
            target = self._start(opened, TARGET, self._plan.argv, " ".join(self._plan.argv))
            if self._plan.peer is None:
                self._first_of({"end": self._wait("exited", target)})
            elif self._is_ready(opened, target):
                argv = ("sh", "-c", self._plan.peer)
                self._together(target, self._start(opened, PEER, argv, self._plan.peer))
            self._stop()
            return self._gather(opened, interrupts.came)

    # --- the programs --------------------------------------------------------------------------

    def _open(self) -> Opened:
        fields = {"hosts": [TARGET, PEER], "capture_limit": CAPTURE, "trace_limit": RECORDS}
        opened = self._testbed.opened(self._testbed.begin("open", fields))
        for rule in self._plan.rules:
            self._testbed.call("rule", rule)
        return opened

    def _start(self, opened: Opened, host: str, argv: Sequence[str], words: str) -> Program:
        stdin = os.dup(0) if host == TARGET and _is_open(0) else None
        fields = {
            "name": host,
            "argv": list(argv),
            "host": host,
            "directory": os.getcwd(),
            "env": _environment(opened.hosts),
            "files": {"/etc/hosts": _names(opened.hosts)},
            "stdin": "null" if stdin is None else "fd",
            "stdout_limit": OUTPUT,
            "stderr_limit": OUTPUT,
            "limits": {"cpu": 1_000_000, "fsize": 1 << 40},
            "trace": True,
            "lines": True,
        }
        self._hosts[len(self._programs) + 1] = host
        try:
            started = self._testbed.run(fields, [] if stdin is None else [stdin])
        finally:
            if stdin is not None:
                os.close(stdin)
        self._programs.append(Program(host, words, started.run))
        return self._programs[-1]

    def _is_ready(self, opened: Opened, target: Program) -> bool:
        """Waits until the program listens or rests; false when the observation ends before that."""
        asked = {
            "rests": self._wait("quiescent", target, _PATIENCE, settle_ms=_RESTS_MS),
            "end": self._wait("exited", target),
        }
        if "link" in opened.capabilities:
            asked["tcp"] = self._sockets_of_target(transport="tcp", state="LISTEN")
            asked["udp"] = self._sockets_of_target(transport="udp")
        came = self._first_of(asked)
        if came in ("tcp", "udp"):  # it may make more sockets before it waits
            came = self._first_of({"rests": self._wait("quiescent", target, 1.0, settle_ms=20)})
        elif came == "rests" and not self._held:
            self._note("the program neither listens nor rests; the peer starts now")
        return came == "rests"

    def _sockets_of_target(self, **fields: object) -> int:
        return self._ask("row-count", _FOREVER, {"host": TARGET, "at_least": 1, **fields})

    def _together(self, target: Program, peer: Program) -> None:
        """Until one has ended and the other rests, or has ended, too."""
        ends = {each.host: self._wait("exited", each) for each in (target, peer)}
        first = self._first_of(ends)
        if first is None:
            return
        other = target if first == PEER else peer
        # The frames and retransmissions of both hosts count, not only the calls of the other one.
        rests = self._wait("quiescent", other, _PATIENCE, settle_ms=_RESTS_MS)
        self._first_of({"end": self._wait("exited", other), "rests": rests})

    def _stop(self) -> None:
        """SIGTERM for what still runs; what does not end from that is killed with the testbed."""
        for program in self._programs:
            program.status = self._testbed.status(program.run)
        running = [each for each in self._programs if each.status.kind == "running"]
        for program in running:
            program.stopped = True
            self._note(f"{program.host} gets SIGTERM: the observation ends")
            fields = {"run": program.run, "signal": "SIGTERM", "to": "all"}
            self._testbed.call("signal", fields)
            self._testbed.await_reply(self._wait("exited", program, _MERCY), _MERCY)
            program.status = self._testbed.status(program.run)
        for program in self._programs:
            # The last packets of a socket leave after its program.
            number = self._wait("quiescent", program, 1.0, settle_ms=20)
            self._testbed.await_reply(number, 1.0)
        self._look(ended=True)

    def _gather(self, opened: Opened, interrupted: bool) -> Observed:
        stats = self._testbed.call("stats").fields
        trace = self._testbed.attachment("trace")
        capture = self._testbed.attachment("capture") if "link" in opened.capabilities else None
        for program in self._programs:
            for stream in _STREAMS:
                program.output[stream] = self._testbed.output(program.run, stream)
        return Observed(trace, capture, opened.tier, tuple(self._programs), stats, interrupted)

    # --- waiting, with a look for the reader now and then -----------------------------------------

    def _wait(
        self, what: str, program: Program, deadline: float = _FOREVER, **fields: object
    ) -> int:
        return self._ask(what, deadline, {"run": program.run, **fields})

    def _ask(self, what: str, deadline: float, fields: Mapping[str, object]) -> int:
        return self._testbed.begin("wait", {"for": what, "deadline": deadline, **fields})

    def _first_of(self, asked: Mapping[str, int]) -> str | None:
        """The name of the barrier that ends first; None when the observation is to end."""
        poller = select.poll()
        poller.register(self._testbed, select.POLLIN)
        try:
            while not self._interrupts.came and time.monotonic() < self._until:
                self._look()
                for name, number in asked.items():
                    reply = self._testbed.take(number)
                    if reply is not None:
                        self._held = bool(reply.fields["held"])
                        return name
                poller.poll(_LOOK * 1000)
            return None
        finally:
            for number in asked.values():
                self._testbed.forget(number)
                self._testbed.call("cancel", {"request": number})

    def _note(self, text: str) -> None:
        self._testbed.call("note", {"kind": "note", "text": text})

    def _look(self, ended: bool = False) -> None:
        """Shows what is new; not more often than a reader can follow."""
        if self._plan.quiet or (time.monotonic() < self._looked + _LOOK and not ended):
            return
        self._looked = time.monotonic()
        reply = self._testbed.call("trace", {"after": self._next})
        skipped = reply.fields["known"] - reply.fields["next"]
        self._next = reply.fields["known"]
        self._show(self._timeline.records(reply.attached(), skipped))
        for program in self._programs:
            for stream in _STREAMS:
                self._show_output(program, stream, ended)
        if ended:
            self._show(self._timeline.settle())

    def _show_output(self, program: Program, stream: str, ended: bool) -> None:
        before = program.written.get(stream, 0)
        reply = self._testbed.call("output", {"run": program.run, "stream": stream, "from": before})
        content = reply.attached()
        program.written[stream] = before + len(content)
        self._show(self._timeline.output(program.run, stream, content, ended))
        total = reply.fields["total"]
        if ended and total > program.written[stream]:
            left = total - program.written[stream]
            note = f"{left:,} more bytes that it wrote to {stream} are not kept"
            self._show([f"{'':10} {program.host:6} {note}"])


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _environment(hosts: Mapping[str, Host]) -> dict[str, str]:
    found = {"ASAN_OPTIONS": "detect_leaks=0"}  # LeakSanitizer needs ptrace(2) for itself
    for name in (TARGET, PEER):
        found[name.upper()] = hosts[name].inet
        found[name.upper() + "6"] = hosts[name].inet6
    return found


def _names(hosts: Mapping[str, Host]) -> str:
    """/etc/hosts"""
    lines = ["127.0.0.1 localhost", "::1 localhost"]
    for name in (TARGET, PEER):
        lines += [f"{each} {name}" for each in (hosts[name].inet, hosts[name].inet6) if each]
    return "".join(line + "\n" for line in lines)
