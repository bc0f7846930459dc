"""The report in the terminal: a line for each stage, the first failure in full, the sums.

A failure is told in a fixed order, so that the eye learns where to look: the verdict, what was
observed and what was expected, the evidence, why it is so, one question, and the commands that
show it again. Whatever a program wrote is made printable before it is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sockwork.build import Built
from sockwork.model import Check, Lab, Outcome, Step
from sockwork.report.commands import Rerun, by_hand
from sockwork.report.style import Style
from sockwork.results import Evidence, Tally, earned
from sockwork.text import printable, sentence

if TYPE_CHECKING:
    from sockwork.diagnosis import Diagnosis

MAX_LINES = 24
MAX_EVIDENCE = 10
MAX_STEPS = 6
MAX_FIGURE = 14  # the block is longer than MAX_LINES then: three levels at once need their room
MAX_NAMES = 8

_MARKS = {"pass": "✓", "fail": "✗", "skip": "·", "error": "!"}
_PAINT = {"pass": ("green",), "fail": ("red",), "skip": ("dim",), "error": ("yellow",)}


class Terminal:
    """Makes the lines of the report on one lab."""

    def __init__(self, style: Style, lab: Lab, rerun: Rerun) -> None:
        self._style = style
        self._lab = lab
        self._rerun = rerun
        self._place = {check.id: n for n, check in enumerate(lab.checks, 1)}

    def header(self, seconds: float, tier: str) -> list[str]:
        """lab 02 TCP echo server · built in 1.4 s · seed 7 · tier T1"""
        parts = [f"lab {self._lab.number:02} {self._lab.title}", f"built in {seconds:.1f} s"]
        line = " · ".join([*parts, f"seed {self._rerun.seed}", f"tier {tier}"])
        return [self._style.paint(line, "bold")]

    def stage(self, name: str, outcomes: Iterable[Outcome]) -> list[str]:
        """One paragraph: the stage and a mark for each of its checks."""
        width = max(len(stage) for stage in self._lab.stages)
        # Mark and id are one word while lines are broken.
        words = " ".join(f"{_MARKS[each.status]}_{each.check.id}" for each in outcomes)
        lines = self._style.wrapped(words, f"  {name:<{width}}  ")
        return [self._with_marks(line) for line in lines]

    def failure(self, outcome: Outcome, built: Built | None, evidence: Evidence) -> list[str]:
        """A failed check in full; evidence gives way so that it fits on a screen of MAX_LINES."""
        failure, style = outcome.failure, self._style
        assert failure is not None
        check, found = outcome.check, _named(outcome)
        head = ["", self._verdict(outcome), f"  {style.paint(check.title, 'bold')}"]
        observed = " ".join(found.message) if found else failure.observed
        head += style.wrapped(sentence(printable(observed)), "  ")
        head += style.wrapped(f"Expected: {printable(failure.expected)}", "  ")
        tail = style.wrapped(found.why if found else check.why, "  Why     ", " " * 10)
        question = found.question if found else one_question(check.hints)
        tail += style.wrapped(question, "  Next    ", " " * 10)
        tail += self._read(outcome)
        source = (found.source if found else None) or failure.source
        if source:
            tail.append(f"  look at {printable(source)}")
        tail.append(f"  rerun   {self._rerun.command(self._lab, check.id)}")
        for label, line in zip(("by hand", "  then:"), by_hand(self._lab, outcome, built)):
            tail.append(f"  {label} {line}")
        if evidence.pcap:
            tail.append(f"  packets {_shorter(evidence.pcap)}")
        room = min(MAX_EVIDENCE, MAX_LINES - 1 - len(head) - len(tail))
        shown = self._figure(outcome) or self._evidence(outcome, max(2, room))
        return [*head, *([""] if shown else []), *shown, "", *tail, ""]

    def _read(self, outcome: Outcome) -> list[str]:
        """Where the mistake is explained, or each of those it may be."""
        found = outcome.diagnosis
        if found and found.code:
            return [f"  explain ./sockwork explain {found.code}"]
        lines = [f"  Read    docs/concepts/{outcome.check.concept}.md"]
        if found and found.candidates:
            candidates = ", ".join(found.candidates)
            lines += self._style.wrapped(f"one of {candidates}", "  explain ", " " * 10)
        return lines

    def brief(self, outcome: Outcome) -> list[str]:
        """A failed check in two lines."""
        assert outcome.failure is not None
        said = sentence(printable(outcome.failure.observed))
        return [self._verdict(outcome), *self._style.wrapped(said, "  ")]

    def does_not_build(self, built: Built, checks: Sequence[Check]) -> list[str]:
        """The first error of a program that did not compile, as the compiler wrote it."""
        lost = sum(check.points for check in checks if check.level == "core")
        what = f"✗ {built.program} does not compile"
        counted = "1 check" if len(checks) == 1 else f"{len(checks)} checks"
        lines = ["", self._ends_with(what, f"{counted}   0/{lost:g}", "red"), ""]
        lines += [self._style.clipped(_tabless(line), 4) for line in built.first_error]
        return [*lines, "", f"  rerun   {self._rerun.command(self._lab)}"]

    def warnings(self, built: Iterable[Built]) -> list[str]:
        """The first warning of each program that compiled with some."""
        lines = []
        for each in built:
            if each.launch and each.warnings:
                more = f" ({each.warnings - 1} more)" if each.warnings > 1 else ""
                lines.append(self._style.clipped(printable(each.first_warning) + more, 2))
        return lines

    def not_judged(self, outcomes: Iterable[Outcome]) -> list[str]:
        """Skips and errors, those with the same reason together."""
        groups: dict[tuple[str, str], list[str]] = {}
        for outcome in outcomes:
            if outcome.status in ("skip", "error"):
                key = (outcome.status, printable(outcome.reason))
                groups.setdefault(key, []).append(outcome.check.id)
        lines = []
        for (status, reason), ids in groups.items():
            what = "skipped" if status == "skip" else "could not be judged"
            names = ", ".join(ids[:MAX_NAMES])
            more = f" and {len(ids) - MAX_NAMES} more" if len(ids) > MAX_NAMES else ""
            text = f"{len(ids)} {what}: {reason.rstrip('.')} ({names}{more})"
            lines += self._style.wrapped(text, f"  {_MARKS[status]}_")
        return [self._with_marks(line) for line in lines]

    def hidden(self, count: int) -> list[str]:
        """Tells of failures that are not shown."""
        if not count:
            return []
        what = "1 more failed check is" if count == 1 else f"{count} more failed checks are"
        text = f"{what} not shown: fix the one above first, or use --all"
        return ["", *self._style.wrapped(text, "  · ")]

    def totals(self, outcomes: Sequence[Outcome], seconds: float) -> list[str]:
        """12/100 points · 50 lost · 38 could not be judged · 4.2 s"""
        tally = Tally.of(outcomes)
        parts = [f"{tally.earned:g}/{tally.core:g} points"]
        if tally.lost:
            parts.append(f"{tally.lost:g} lost")
        if tally.not_judged:
            parts.append(f"{tally.not_judged:g} could not be judged")
        colour = "red" if tally.lost else "yellow" if tally.not_judged else "green"
        return [self._style.paint("  " + " · ".join([*parts, f"{seconds:.1f} s"]), colour, "bold")]

    # --- parts ---------------------------------------------------------------------------------

    def _verdict(self, outcome: Outcome) -> str:
        check = outcome.check
        what = f"✗ {self._place[check.id]}/{len(self._lab.checks)} {check.id}"
        found = _named(outcome)
        called = found.code if found else outcome.reason
        right = f"{called}   {earned(outcome):g}/{check.points:g}"
        return self._ends_with(what, printable(right), "red")

    def _ends_with(self, left: str, right: str, colour: str) -> str:
        gap = max(2, self._style.width - len(left) - len(right))
        return self._style.paint(left, colour, "bold") + " " * gap + right

    def _with_marks(self, line: str) -> str:
        for status, mark in _MARKS.items():
            line = line.replace(f"{mark}_", f"{self._style.paint(mark, *_PAINT[status])} ")
        return line

    def _evidence(self, outcome: Outcome, room: int) -> list[str]:
        """The last steps, then what the failure shows: the way there, and the difference."""
        assert outcome.failure is not None
        found = _named(outcome)
        shown: list[str] = []
        for line in found.evidence if found else outcome.failure.evidence:
            shown += self._evidence_line(_tabless(line))
        shown = shown[:room]
        last = min(MAX_STEPS, room - len(shown))
        steps = outcome.steps[-last:] if last > 0 else ()
        return [*(self._style.clipped(_step(step), 4) for step in steps), *shown]

    def _figure(self, outcome: Outcome) -> list[str]:
        """The calls, states and packets around a packet that was not as expected."""
        from sockwork.figure import Deviation, lay_out, terminal
        from sockwork.trace import Trace, TraceError

        found = _named(outcome)
        if outcome.trace is None or not found or not found.deviation or not found.deviation.packet:
            return []
        at = found.deviation
        try:
            trace = Trace.parse(outcome.trace)
        except TraceError:
            return []
        layout = lay_out(trace, deviation=Deviation(at.expected, packet=at.packet, time=at.time))
        if not layout.rows:
            return []
        return terminal.lines(layout, self._style.width, self._style.unicode, MAX_FIGURE)

    def _evidence_line(self, line: str) -> list[str]:
        """Sentences are broken where they do not fit; columns are cut, or they would be none."""
        # The hosts of a packet stand in front of it by name: its ports are enough.
        line = re.sub(r"(TCP|UDP) \S+:(\d+) > \S+:(\d+)", r"\1 \2 > \3", line)
        if "  " in line.strip():
            return [self._style.clipped(line, 4)]
        return self._style.wrapped(line, "    ", "      ")


def _named(outcome: Outcome) -> Diagnosis | None:
    """The diagnosis, if the evidence leaves one only."""
    found = outcome.diagnosis
    return found if found and found.code else None


def one_question(hints: Sequence[str]) -> str:
    """The first hint, up to the end of its first question."""
    first = " ".join(hints[0].split()) if hints else ""
    return re.split(r"(?<=\?)\s", first, maxsplit=1)[0]


def _shorter(path: Path) -> str:
    return min(str(path), os.path.relpath(path), key=len)


def _tabless(line: str) -> str:
    return printable(line.expandtabs(4))


def _step(step: Step) -> str:
    return f"{step.time / 1e6:+10.2f} ms  {printable(step.text)}"
