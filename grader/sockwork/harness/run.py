"""A started program."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sockwork.facts import Address, Process, Resources, Row, Status
from sockwork.harness.scene import Scene
from sockwork.harness.text import amount, byte_diff, difference, quoted
from sockwork.harness.waiting import Outgoing
from sockwork.testbed import Started

_HARMLESS = {"SIGSTOP", "SIGCONT", "SIGWINCH", "SIGURG", "SIGCHLD"}
# A program that used this much of a processor while no frame passed does not wait, it spins.
_SPIN_NS = 300_000_000
_NOUNS = {"fds": "descriptors"}
_SLICE = 0.5  # seconds between two looks at the processor time used


# The calls that move bytes, and those that wait: for Run.shorten() and Run.interfere().
READS = ("read", "readv", "recvfrom", "recvmsg")
WRITES = ("write", "writev", "sendto", "sendmsg")
ACCEPTS = ("accept", "accept4")
WAITS = ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait")


def _listed(calls: Sequence[str]) -> str:
    return ", ".join(calls)


class Run:
    """One started program and its process tree. Its texts name it as the student does."""

    def __init__(self, scene: Scene, program: str, started: Started, argv: Sequence[str]) -> None:
        again = sum(run.program == program for run in scene.runs)
        self.program: str = program
        self.name: str = f"{program} ({again + 1})" if again else program
        self.number = started.run
        self._pid = started.pid
        self.command = tuple(argv)
        self.is_server = False
        self._address: Address | None = None
        self._scene = scene
        self._pipe = started.stdin  # the write end of its stdin, as long as that is open
        self._stdin = Outgoing(-1 if self._pipe is None else self._pipe, self._write_stdin)
        self._end: Status | None = None
        self._end_expected = False
        self._lines = 0

    # --- what it is -------------------------------------------------------------------------------

    def serve_at(self, row: Row) -> None:
        """Notes that this is a server, and the row at which it listens."""
        self.is_server = True
        self._address = row.local

    @property
    def address(self) -> Address:
        assert self._address, f"{self.name} was not started as a server"
        return self._address

    @property
    def port(self) -> int:
        return self.address[1]

    # --- calls that do less than was asked for ----------------------------------------------------

    def shorten(self, calls: Sequence[str], size: int) -> None:
        """From now on each of `calls` on a stream socket moves at most `size` bytes.

        For a check that needs "ptrace". recv(2) and send(2) may always do so; on loopback and for
        small amounts the kernel never does.
        """
        self._scene.step(f"{self.name}: {_listed(calls)} move at most {amount(size, 'byte')} each")
        self._scene.testbed.perturb(self.number, calls, cap=size, times=0)

    def interfere(self, calls: Sequence[str], error: str, times: int = 1, first: int = 1) -> None:
        """Lets `times` of `calls` fail with `error`, from the `first` one on.

        For a check that needs "ptrace". Only errors that POSIX allows for the call; EINTR only comes
        to a program that catches some signal.
        """
        self._scene.step(f"{self.name}: {_listed(calls)} fail with {error}, {times} times")
        self._scene.testbed.perturb(self.number, calls, error=error, times=times, first=first)

    @property
    def status(self) -> Status:
        if self._end is None:
            status = self._scene.testbed.status(self.number)
            self._end = None if status.running else status
            return status
        return self._end

    @property
    def alive(self) -> bool:
        return self.status.running

    @property
    def known_to_have_ended(self) -> bool:
        return self._end is not None

    @property
    def stdout(self) -> bytes:
        return self._scene.testbed.output(self.number, "stdout")

    @property
    def stderr(self) -> str:
        return self._scene.testbed.output(self.number, "stderr").decode(errors="replace")

    @property
    def last_words(self) -> str:
        lines = self.stderr.strip().splitlines()
        return quoted(lines[-1].encode(), 100) if lines else ""

    @property
    def processes(self) -> list[Process]:
        return self._scene.testbed.processes(self.number)

    @property
    def rows(self) -> list[Row]:
        """The TCP sockets that its processes hold, as the target's table has them."""
        pids = {process.pid for process in self.processes}
        return [row for row in self._scene.rows("target") if pids & set(row.owners)]

    @property
    def situation(self) -> str:
        """What it is doing now: ended, stopped, running, or the system calls it sleeps in."""
        if not self.alive:
            return f"{self.name} has ended: {self.status.text}"
        threads = [thread for process in self.processes for thread in process.threads]
        if not threads:
            return f"{self.name} is about to end"
        if any(thread.state in "Tt" for thread in threads):
            return f"{self.name} is stopped by this check"
        calls = list(dict.fromkeys(thread.call for thread in threads if thread.call))
        if any(thread.call is None for thread in threads):
            return f"{self.name} runs: it is in no system call"
        return f"{self.name} sleeps in {', '.join(calls)}"

    @property
    def must_live(self) -> bool:
        return self.is_server and not self._end_expected

    def unexpected_end(self) -> Status | None:
        """Its end, if it was no success or it is a server, and the check did not expect it."""
        status = self._settled_status()
        if status.running or self._end_expected:
            return None
        bad = self.is_server or status.kind == "signal" or status.code != 0
        return status if bad else None

    def close(self) -> None:
        """Releases what the harness holds of it."""
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None

    def _write_stdin(self, data: memoryview) -> int:
        assert self._pipe is not None, f'{self.name} was not started with stdin="pipe"'
        return os.write(self._pipe, data)

    # --- its end ----------------------------------------------------------------------------------

    def wait_exit(self) -> Status:
        """Waits until it has ended, however it ends."""
        return self._wait_exit("ends")

    def _wait_exit(self, how: str) -> Status:
        self._scene.waiter.ask("exited", {"run": self.number})
        if self._settled_status().running:
            self._scene.fail(
                f"{self.name} has not ended: {self.situation}.",
                f"{self.name} {how}.",
                reason="still-running",
                evidence=self._words(),
            )
        self._end_expected = True
        return self.status

    def expect_exit(self, code: int = 0) -> None:
        self._scene.step(f"{self.name} is to end with exit status {code}")
        status = self._wait_exit(f"ends with exit status {code}")
        if (status.kind, status.code) != ("exit", code):
            self._end_expected = False  # so that death by a signal is told first
            self._scene.fail(
                f"{self.name} ended with {status.text}.",
                f"{self.name} ends with exit status {code}.",
                reason="wrong-exit",
                evidence=self._words(),
                about_exit=True,
            )

    def expect_usage_error(self) -> None:
        """Exit status 2, nothing on stdout, a usage line on stderr."""
        self.expect_exit(2)
        self.expect_stdout(b"")
        if "usage" not in self.stderr.lower():
            self._scene.fail(
                f"{self.name} wrote {quoted(self.stderr.encode(), 100)} to stderr.",
                "Wrong arguments are answered with one usage line on stderr.",
                reason="no-usage",
            )

    def expect_error(self, call: str | None, why: str) -> None:
        """Exit status 1 and one line `PROGRAM: CALL: REASON` on stderr. `call` None: any call."""
        self.expect_exit(1)
        form = re.compile(rf"{re.escape(self.program)}: (?P<call>[^:]+): (?P<why>.+)")
        found = [match for match in map(form.fullmatch, self.stderr.splitlines()) if match]
        right = [m for m in found if m["why"] == why and call in (None, m["call"])]
        if len(found) != 1 or not right:
            self._scene.fail(
                self._error_seen(len(found)),
                f'One line "{self.program}: {call or "CALL"}: {why}" on stderr.',
                reason="wrong-error",
                evidence=[f"stderr: {line}" for line in self.stderr.splitlines()[:6]],
            )

    def expect_reason(self, why: str) -> None:
        """Exit status 1 and the reason on stderr, in whatever words around it."""
        self.expect_exit(1)
        if why not in self.stderr:
            self._scene.fail(
                self._error_seen(1),
                f'The reason "{why}" on stderr.',
                reason="wrong-error",
                evidence=[f"stderr: {line}" for line in self.stderr.splitlines()[:6]],
            )

    def _error_seen(self, lines: int) -> str:
        if not self.stderr.strip():
            return f"{self.name} ended with exit status 1 and said nothing on stderr."
        if lines > 1:
            return f"{self.name} reported {lines} errors on stderr."
        return f"{self.name} wrote {quoted(self.stderr.strip().encode(), 100)} to stderr."

    def expect_alive(self, why: str) -> None:
        status = self._settled_status()
        if not status.running:
            self._scene.fail(
                f"{self.name} ended during the check: {status.text}.",
                f"{self.name} goes on: {why}.",
                reason="signal" if status.kind == "signal" else "exited",
                evidence=self._words(),
                about_exit=True,
            )

    def _settled_status(self) -> Status:
        """Its status; waits for that of a program that has ended but is not reported yet. Nothing
        of such a program moves any more, so stillness is no proof here."""
        states = [process.state for process in self.processes if process.pid == self._pid]
        if states in ([], ["Z"], ["X"]):
            self._scene.waiter.ask("exited", {"run": self.number}, given_up=None)
        return self.status

    def _words(self) -> list[str]:
        return [f"its stderr ends with: {self.last_words}"] if self.last_words else []

    # --- its output -------------------------------------------------------------------------------

    def expect_stdout(self, data: bytes) -> None:
        """Its whole output, after it has ended, is exactly `data`."""
        self._wait_exit("ends")
        self._compare(data, self.stdout)

    def expect_lines(self, *lines: str) -> None:
        self.expect_stdout("".join(f"{line}\n" for line in lines).encode())

    def expect_output(self, data: bytes) -> None:
        """So far its output is exactly `data`; it may go on running."""
        self._scene.step(f"{self.name} is to have written {amount(len(data))}")
        self._output(bytes=len(data))
        self._compare(data, self.stdout)

    def next_line(self) -> str:
        """The next line of its output, without the newline."""
        self._lines += 1
        self._output(lines=self._lines)
        lines = self.stdout.split(b"\n")
        if len(lines) <= self._lines:
            self._scene.fail(
                f"{self.name} has written {amount(len(lines) - 1, 'line')}: {self.situation}.",
                f"Line {self._lines} of its output.",
                reason="missing-output",
                evidence=[f"stdout: {quoted(self.stdout)}", *self._words()],
            )
        line = lines[self._lines - 1].decode(errors="replace")
        self._scene.step(f"{self.name} has written {quoted(line.encode())}")
        return line

    def _output(self, **until: int) -> None:
        self._scene.waiter.ask("output", {"run": self.number, "stream": "stdout", **until})

    def _compare(self, expected: bytes, got: bytes) -> None:
        if expected != got:
            self._scene.fail(
                f"The output of {self.name} differs: {difference(expected, got)}.",
                f"Its output is exactly {quoted(expected)}, {amount(len(expected))}.",
                reason="wrong-output",
                evidence=[*byte_diff(expected, got), self.situation, *self._words()],
            )

    # --- its input and signals --------------------------------------------------------------------

    def stdin_write(self, data: bytes) -> None:
        """Writes to its stdin as fast as it reads; what does not fit goes on during later verbs."""
        self._scene.step(f"{self.name} gets {amount(len(data))} on stdin: {quoted(data, 24)}")
        self._stdin.add(data)
        self._stdin.advance()
        self._scene.waiter.keep_going(self._stdin)

    def stdin_close(self) -> None:
        """Ends its stdin, once everything written before has gone."""
        self._scene.step(f"the stdin of {self.name} ends")
        self._stdin.finally_do(self.close)

    def signal(self, signal: str, to: str = "main") -> None:
        self._scene.step(f"{self.name} gets {signal}")
        self._end_expected = self._end_expected or signal not in _HARMLESS
        self._scene.testbed.call("signal", {"run": self.number, "signal": signal, "to": to})

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops every thread of it for the length of the block."""
        self._scene.step(f"{self.name} is stopped")
        self._scene.testbed.call("freeze", {"run": self.number})
        yield
        self._scene.step(f"{self.name} goes on")
        self._scene.testbed.call("thaw", {"run": self.number})

    # --- what it uses -----------------------------------------------------------------------------

    def expect_idle(self, why: str) -> None:
        """It comes to rest; a program that goes on using the processor spins."""
        self._scene.step(f"{self.name} is to come to rest: {why}")
        used = 0
        for _ in range(round(self._scene.waiter.deadline / _SLICE)):
            frames = self._frames()
            seen = self._scene.waiter.ask(
                "quiescent", {"run": self.number}, deadline=_SLICE, given_up=None
            )
            if seen.held:
                return
            if frames == self._frames():
                used += int(seen.facts["cpu_ns"])
            if used >= _SPIN_NS:
                spent = f"used {used / 1e6:.0f} ms of processor time"
                self._restless("spin", f"has nothing to do and {spent}", why)
        self._restless("restless", "never comes to rest", why)

    def _frames(self) -> int:
        return int(self._scene.testbed.call("stats").fields["frames"])

    def _restless(self, reason: str, what: str, why: str) -> None:
        self._scene.fail(
            f"{self.name} {what}.",
            f"It sleeps until something happens: {why}.",
            reason=reason,
            evidence=[self.situation],
        )

    def resources(self) -> Resources:
        return Resources.of(self.processes)

    def expect_resources(self, why: str, **bounds: int) -> None:
        """Waits until its process tree is within `bounds` (fds_at_most=5, zombies_at_most=0, …)."""
        wanted = ", ".join(_bound_text(name, bound) for name, bound in bounds.items())
        self._scene.step(f"{self.name} is to hold {wanted}: {why}")
        if self._scene.waiter.ask("process", {"run": self.number, **bounds}).held:
            return
        resources = self.resources()
        kinds = sorted({name.rsplit("_at_", 1)[0] for name in bounds})
        held = ", ".join(f"{getattr(resources, kind)} {_NOUNS.get(kind, kind)}" for kind in kinds)
        self._scene.fail(
            f"{self.name} holds {held}.",
            f"It holds {wanted}: {why}.",
            reason="zombies" if kinds == ["zombies"] else "leak",
            evidence=[self.situation, *(row.text for row in self.rows[:4])],
        )

    def holds_descriptors(self, count: int) -> bool:
        """Waits until its process tree holds so many descriptors; false if it never does."""
        self._scene.step(f"waits until {self.name} holds {count} descriptors")
        return self._scene.waiter.ask("process", {"run": self.number, "fds_at_least": count}).held

    def limit_descriptors(self, spare: int = 8) -> int:
        """Lets the running program open only `spare` more descriptors; returns the limit set."""
        limit = self.processes[0].fds + spare
        self._scene.step(f"{self.name} may open {spare} more descriptors ({limit} in all)")
        self._scene.testbed.limit_descriptors(self.number, limit)
        return limit


def _bound_text(name: str, bound: int) -> str:
    kind, _, direction = name.rpartition("_at_")  # fds_at_most
    return f"at {direction} {bound} {_NOUNS.get(kind, kind)}"
