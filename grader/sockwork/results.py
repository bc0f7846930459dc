"""results.json, version 1: what one run of the grader found. Every report is made from it.

The format is schema/results-v1.schema.json. A pass earns a check's points and a fail loses them;
a skip or an error earns nothing, but nothing was judged either: `Tally` tells the two apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sockwork
from sockwork import atomic
from sockwork.build import Built
from sockwork.model import Check, Lab, Outcome, Verdict
from sockwork.text import sentence

VERSION = 1
SCHEMA = Path(__file__).with_name("schema") / "results-v1.schema.json"


@dataclass(frozen=True)
class Evidence:
    """Where the trace and the capture of a check were put, if they were kept."""

    trace: Path | None = None
    pcap: Path | None = None

    def relative_to(self, folder: Path) -> dict[str, str | None]:
        """The same as strings, for a file in `folder`."""
        files = {"trace": self.trace, "pcap": self.pcap}
        return {k: os.path.relpath(v, folder) if v else None for k, v in files.items()}


@dataclass(frozen=True)
class LabRun:
    """One lab's part of a run: what was to be judged and what came of it, in handout order."""

    lab: Lab
    outcomes: tuple[Outcome, ...]
    built: Mapping[str, Built]
    evidence: Mapping[str, Evidence]  # by the id of the check


@dataclass(frozen=True)
class Tally:
    """Points of some checks. A challenge adds to `earned` and never to the others."""

    earned: float
    lost: float
    not_judged: float
    core: float  # earned + lost + not_judged, without what challenges earned

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> Tally:
        """Adds up `outcomes`."""
        total = {"pass": 0.0, "fail": 0.0, "skip": 0.0, "error": 0.0}
        extra = 0.0
        for outcome in outcomes:
            if outcome.check.level == "core":
                total[outcome.status] += outcome.check.points
            else:
                extra += earned(outcome)
        not_judged = total["skip"] + total["error"]
        return cls(total["pass"] + extra, total["fail"], not_judged, sum(total.values()))


def earned(outcome: Outcome) -> float:
    """The points that `outcome` gives."""
    return outcome.check.points if outcome.status == "pass" else 0.0


def in_order(lab: Lab, outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """`outcomes` in the order of the handout; they come in the order in which checks end."""
    place = {check.id: number for number, check in enumerate(lab.checks)}
    return tuple(sorted(outcomes, key=lambda outcome: place[outcome.check.id]))


def message(outcome: Outcome) -> str:
    """What the learner is told in one or two sentences; empty for a pass."""
    if outcome.failure is None:
        return sentence(outcome.reason) if outcome.reason else ""
    return f"{sentence(outcome.failure.observed)} Expected: {outcome.failure.expected}"


def as_json(
    runs: Sequence[LabRun], *, seed: int, tier: str, submission: str, folder: Path
) -> dict[str, Any]:
    """The results as the JSON object of the schema, for a file in `folder`."""
    return {
        "version": VERSION,
        "kit": sockwork.__version__,
        "tier": tier,
        "seed": seed,
        "submission": submission,
        "labs": [_lab(run, folder) for run in runs],
    }


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Writes the results: `path` then holds all of them, or what it held before."""
    # A lone surrogate stands for a byte that was no UTF-8; its \\uNNNN form is right in JSON.
    content = text(results).encode("utf-8", "backslashreplace")
    if is_stream(path):
        path.write_bytes(content)
    else:
        atomic.write(path.resolve(), content)


def is_stream(path: Path) -> bool:
    """Whether `path` is a pipe or a device: written to, where a file would be replaced."""
    return path.exists() and not path.is_file()


def text(results: Mapping[str, Any]) -> str:
    """The results as they stand in the file."""
    return json.dumps(results, indent=1, ensure_ascii=False) + "\n"


def exit_status(outcomes: Sequence[Outcome]) -> int:
    """0 all that was judged passed, 1 something failed, 4 it could not be judged."""
    seen: set[Verdict] = {outcome.status for outcome in outcomes}
    if "fail" in seen:
        return 1
    return 4 if "error" in seen or "pass" not in seen else 0


def statuses(path: Path) -> list[Verdict]:
    """The verdicts of all checks in a file written before; none if there is no file."""
    if not path.exists():
        return []
    labs = json.loads(path.read_bytes())["labs"]
    return [check["status"] for lab in labs for check in lab["checks"]]


def _lab(run: LabRun, folder: Path) -> dict[str, Any]:
    tally = Tally.of(run.outcomes)
    return {
        "lab": run.lab.id,
        "points": tally.earned,
        "max_points": tally.core,
        "build": {
            "status": "ok" if all(each.launch for each in run.built.values()) else "failed",
            "log": "".join(each.log for each in run.built.values()),
        },
        "checks": [
            _check(outcome, run.evidence.get(outcome.check.id, Evidence()), folder)
            for outcome in run.outcomes
        ],
    }


def _check(outcome: Outcome, evidence: Evidence, folder: Path) -> dict[str, Any]:
    check: Check = outcome.check
    return {
        "id": check.id,
        "title": check.title,
        "stage": check.stage,
        "level": check.level,
        "status": outcome.status,
        "reason": outcome.reason,
        "diagnosis": outcome.diagnosis.code if outcome.diagnosis else None,
        "points": earned(outcome),
        "max_points": check.points,
        "message": message(outcome),
        "evidence": evidence.relative_to(folder),
        "seconds": round(outcome.seconds, 3),
    }
