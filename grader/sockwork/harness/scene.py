"""What the parts of one check share: the testbed, the runs, the steps, how a failure is told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from sockwork.facts import Address, Packet, Row
from sockwork.harness import sanitizer
from sockwork.harness.failure import Failed, Skipped
from sockwork.harness.waiting import Waiter
from sockwork.model import Check, Failure, Launch, Program, Step
from sockwork.testbed import Opened, Testbed

if TYPE_CHECKING:
    from sockwork.harness.run import Run

# After the last expectation a program may still be about to die of it. One that goes on working
# for its other clients is given no more time.
_LAST_MOMENT = 0.5
_LAST_SETTLE_MS = 5
# A connection breaks before the program that held it has died, and its end is to be told first.
_SETTLED = 1.0
_PACKETS = 4  # of a connection, shown as evidence


class Scene:
    """One check being performed in one testbed."""

    def __init__(
        self,
        testbed: Testbed,
        opened: Opened,
        check: Check,
        programs: Sequence[Program],
        launches: Mapping[str, Launch],
        scale: float,
        traced: bool = False,
    ) -> None:
        self.testbed = testbed
        self.opened = opened
        self.check = check
        self.traced = traced  # the system calls of every program are recorded
        self.runs: list[Run] = []
        self.steps: list[Step] = []
        self.waiter = Waiter(testbed, scale, self._moving)
        self._programs = {program.name: program for program in programs}
        self._launches = launches

    @property
    def link(self) -> bool:
        return "link" in self.opened.capabilities

    def launch(self, program: str) -> Launch:
        if program not in self._launches:
            raise Skipped(f"the submission holds no {program}")
        return self._launches[program]

    def arguments(self, program: str) -> tuple[str, ...]:
        """The names of the program's arguments, as lab.toml declares them."""
        return self._programs[program].arguments

    def step(self, text: str) -> None:
        self.steps.append(Step(time.monotonic_ns() - self.opened.origin, text))
        self.testbed.forget(self.testbed.begin("note", {"kind": "step", "text": text}))

    def _moving(self) -> list[int]:
        """The runs that may still do something; the last one also when all have ended."""
        moving = [run.number for run in self.runs if not run.known_to_have_ended]
        return moving or [run.number for run in self.runs[-1:]]

    # --- facts ------------------------------------------------------------------------------------

    def rows(self, host: str, transport: str = "tcp") -> list[Row]:
        return self.testbed.rows(host, transport)

    def packets(self) -> list[Packet]:
        return self.testbed.packets() if self.link else []

    def conversation(self, one: Address, other: Address) -> list[str]:
        """The last packets between two addresses, in words."""
        ends = {one, other}
        packets = [p for p in self.packets() if {p.source, p.destination} == ends]
        return [f"packet {p.n}  {p.from_}: {p.summary}" for p in packets[-_PACKETS:]]

    def circumstances(self) -> list[str]:
        """What each program is doing now, and its last words."""
        lines = []
        for run in self.runs[-2:]:
            lines.append(run.situation)
            if run.last_words:
                lines.append(f"its stderr ends with: {run.last_words}")
        return lines

    # --- failures ---------------------------------------------------------------------------------

    def fail(
        self,
        observed: str,
        expected: str,
        *,
        reason: str,
        evidence: Iterable[str] = (),
        about_exit: bool = False,
    ) -> NoReturn:
        """Fails the check. A crash of the program comes first; `about_exit`: an exit is no news."""
        self.waiter.quiet(deadline=_SETTLED)
        failure = Failure(reason, observed, expected, tuple(evidence))
        raise Failed(self._report(failure) or self._death(failure, about_exit) or failure)

    def _report(self, failure: Failure) -> Failure | None:
        for run in self.runs:
            report = sanitizer.find(run.stderr)
            if report:
                return self._by_sanitizer(run, report, failure)
        return None

    def _by_sanitizer(self, run: Run, report: sanitizer.Report, failure: Failure) -> Failure:
        place = f" at {report.source}" if report.source else ""
        return replace(
            failure,
            reason="sanitizer",
            observed=f"{run.name} has an error of memory or arithmetic: {report.kind}{place}.",
            evidence=(*report.lines, f"seen by the check: {failure.observed}", *failure.evidence),
            source=report.source,
        )

    def _death(self, failure: Failure, about_exit: bool) -> Failure | None:
        for run in self.runs:
            status = run.unexpected_end()
            if status and (status.kind == "signal" or not about_exit):
                return replace(
                    failure,
                    reason="signal" if status.kind == "signal" else "exited",
                    observed=f"{run.name} ended during the check: {status.text}.",
                    evidence=(f"seen by the check: {failure.observed}", *failure.evidence),
                )
        return None

    def inspect(self) -> None:
        """At the end of a check that held: no sanitizer report, and every server still alive."""
        self.waiter.quiet(deadline=_LAST_MOMENT, settle_ms=_LAST_SETTLE_MS)
        for run in self.runs:
            report = sanitizer.find(run.stderr)
            if report:
                nothing = Failure("", "every byte was right", "No error of memory or arithmetic.")
                raise Failed(self._by_sanitizer(run, report, nothing))
            if run.must_live:
                run.expect_alive("a server runs until it is killed")
