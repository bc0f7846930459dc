"""Which misconception a failed check shows: the rules read the evidence and name it by a code.

    found = diagnose(outcome, lab)

A code is named only if the evidence leaves one: several that hold and none that is declared the
more specific one give candidates and no code. A wrong name is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

from sockwork.diagnosis import rules
from sockwork.diagnosis.case import Case
from sockwork.diagnosis.entry import ENTRIES, Entry, Evidence
from sockwork.model import Lab, Outcome
from sockwork.trace import Trace, TraceError

__all__ = ["CATALOGUE", "Deviation", "Diagnosis", "diagnose", "rules"]

CATALOGUE: dict[str, Entry] = dict(sorted(ENTRIES.items()))

# Of a longer trace (a program that spins writes one) only the beginning is read, and only by the
# rules that find there what they need.
_READ_WHOLE = 5_000_000
_BEGINNING = 2_000_000


@dataclass(frozen=True)
class Deviation:
    """Where the figure marks that something else was expected."""

    time: int
    packet: int | None
    expected: str


@dataclass(frozen=True)
class Diagnosis:
    """What the evidence says; without a code when it leaves several, which are the candidates."""

    code: str | None
    message: tuple[str, ...]  # the sentence that tells it
    evidence: tuple[str, ...]  # at most 10 lines
    question: str
    why: str
    source: str | None
    deviation: Deviation | None
    candidates: tuple[str, ...] = ()

    @property
    def entry(self) -> Entry | None:
        return CATALOGUE[self.code] if self.code else None


def diagnose(outcome: Outcome, lab: Lab) -> Diagnosis | None:
    """The diagnosis of a failed check; None if it did not fail, or no rule holds."""
    case, whole = _case(outcome, lab)
    if case is None:
        return None
    held = {
        code: evidence
        for code, entry in CATALOGUE.items()
        if whole or entry.endless
        if (evidence := entry.find(case)) is not None
    }
    beaten = {code for winner in held for code in CATALOGUE[winner].beats}
    left = {code: evidence for code, evidence in held.items() if code not in beaten}
    if not left:
        return None
    if len(left) == 1:
        return _named(*left.popitem())
    return Diagnosis(None, (), (), "", "", None, None, tuple(left))


def _case(outcome: Outcome, lab: Lab) -> tuple[Case | None, bool]:
    """The case that the rules read, and whether it is the whole trace."""
    if outcome.failure is None:
        return None, True
    content = outcome.trace or b""
    whole = len(content) <= _READ_WHOLE
    if not whole:
        content = content[: content.rfind(b"\n", 0, _BEGINNING) + 1]
    try:
        return Case(outcome, outcome.failure, lab, Trace.parse(content)), whole
    except TraceError:  # of another version, or damaged: nothing can be said
        return None, True


def _named(code: str, evidence: Evidence) -> Diagnosis:
    entry = CATALOGUE[code]
    return Diagnosis(
        code,
        evidence.lines[:1],
        evidence.lines[1:],
        entry.question,
        entry.why,
        evidence.source,
        _deviation(evidence),
    )


def _deviation(evidence: Evidence) -> Deviation | None:
    at = evidence.packet or evidence.call
    if at is None or not evidence.expected:
        return None
    number = evidence.packet.number if evidence.packet else None
    return Deviation(at.time, number, evidence.expected)
