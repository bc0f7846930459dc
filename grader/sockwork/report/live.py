"""The report of a lab while it is graded: each stage is told when the last of its checks ended."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal, TextIO

from sockwork.build import Built
from sockwork.model import Check, Outcome
from sockwork.report.style import Style
from sockwork.report.terminal import Terminal
from sockwork.results import Evidence

Detail = Literal["first", "all", "brief"]


class Live:
    """Yields lines as outcomes come in; the order of the lines is that of the handout."""

    def __init__(self, terminal: Terminal, checks: Sequence[Check], detail: Detail) -> None:
        self._terminal = terminal
        self._detail = detail
        self._left = _by_stage(checks)
        self._outcomes: dict[str, Outcome] = {}
        self._evidence: dict[str, Evidence] = {}
        self._built: Mapping[str, Built] = {}
        self._told = 0  # failures shown in full

    def begin(self, built: Mapping[str, Built], seconds: float, tier: str) -> Iterator[str]:
        """The header, and what the compiler complained about."""
        self._built = built
        yield from self._terminal.header(seconds, tier)
        yield from self._terminal.warnings(built.values())
        for program, each in built.items():
            if each.launch is None:
                checks = [c for stage in self._left for c in stage if c.program == program]
                yield from self._terminal.does_not_build(each, checks)

    def add(self, outcome: Outcome, evidence: Evidence) -> Iterator[str]:
        """Takes an outcome; the lines are those of stages that are complete now."""
        self._outcomes[outcome.check.id] = outcome
        self._evidence[outcome.check.id] = evidence
        while self._left and all(check.id in self._outcomes for check in self._left[0]):
            stage = [self._outcomes[check.id] for check in self._left.pop(0)]
            yield from self._terminal.stage(stage[0].check.stage, stage)
            for each in stage:
                yield from self._failure(each)

    def end(self, seconds: float) -> Iterator[str]:
        """What was not judged and why, and the sums."""
        outcomes = list(self._outcomes.values())
        yield from self._terminal.not_judged(outcomes)
        failed = sum(_is_told_alone(outcome) for outcome in outcomes)
        yield from self._terminal.hidden(failed - self._told)
        yield from self._terminal.totals(outcomes, seconds)

    def _failure(self, outcome: Outcome) -> Iterator[str]:
        if not _is_told_alone(outcome) or (self._detail == "first" and self._told):
            return
        self._told += 1
        if self._detail == "brief":
            yield from self._terminal.brief(outcome)
        else:
            built = self._built.get(outcome.check.program)
            yield from self._terminal.failure(outcome, built, self._evidence[outcome.check.id])


class Progress:
    """One line that is written over and over, on a terminal; nothing anywhere else. It is taken away
    at the end of a `with` block."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._style = Style.of(stream)
        self._shows = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.clear()

    def show(self, text: str) -> None:
        """Replaces the line."""
        if self._shows:
            self._stream.write("\r\x1b[K" + self._style.fit(self._style.clipped(text)))
            self._stream.flush()

    def clear(self) -> None:
        """Takes the line away."""
        if self._shows:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def _is_told_alone(outcome: Outcome) -> bool:
    """A program that does not compile is told once, not once a check."""
    return outcome.status == "fail" and outcome.reason != "does-not-compile"


def _by_stage(checks: Collection[Check]) -> list[list[Check]]:
    stages: dict[str, list[Check]] = {}
    for check in checks:
        stages.setdefault(check.stage, []).append(check)
    return list(stages.values())
