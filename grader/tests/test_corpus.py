"""The grader's own exam: programs whose verdict is known (grader/corpus).

A program of corpus/wrong is right in everything but one bug: the first check that fails must be
the one that its expect.toml names. A program of corpus/right must pass every check.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sockwork import build, grading, labs, paths, results, submission
from sockwork.model import Check, Lab, Outcome

CORPUS = paths.ROOT / "grader" / "corpus"
LABS = {lab.number: lab for lab in labs.load_labs(paths.LABS)}
PITFALL = re.compile(r"P(0[1-9]|[1-9][0-9]|10[0-9]|11[0-4])")


def entries(kind: str) -> list[Path]:
    """The corpus folders of `kind`, "wrong" or "right"."""
    return sorted(folder for folder in (CORPUS / kind).glob("*") if folder.is_dir())


def parameters(kind: str) -> Iterator[Any]:
    for folder in entries(kind):
        yield pytest.param(folder, id=folder.name)


def lab_of(folder: Path) -> Lab:
    """The lab that a corpus folder is for: the number at the front of its name."""
    return LABS[int(folder.name.split("-")[0])]


def expected(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "expect.toml").read_text())


def judge(
    folder: Path, checks: Sequence[Check], seed: int = 1, jobs: int = 1
) -> tuple[Outcome, ...]:
    """The outcomes of `checks`, in their order, for the submission in `folder`."""
    lab = lab_of(folder)
    programs = {check.program for check in checks}
    optimised = {check.program for check in checks if check.optimised}
    built = build.build(submission.load(folder, lab), programs, optimised=optimised)
    assert all(each.launch for each in built.values()), [each.log for each in built.values()]
    settings = grading.Settings(seed=seed, jobs=jobs)
    return results.in_order(lab, grading.judge(lab, checks, built, settings))


def told(outcomes: Collection[Outcome]) -> str:
    """What an assertion shows: one line a check."""
    return "\n".join(
        f"{outcome.status:5}  {outcome.check.id}  {results.message(outcome)}"
        for outcome in outcomes
    )


def source_names(folder: Path) -> list[str]:
    """The files of the submission in a corpus folder, all in the one folder of its lab."""
    assert [entry.name for entry in folder.iterdir() if entry.is_dir()] == [lab_of(folder).id]
    return sorted(entry.name for entry in (folder / lab_of(folder).id).iterdir())


def expect_words(table: Mapping[str, Any], keys: Mapping[str, type]) -> None:
    assert {key: type(value) for key, value in table.items()} == keys


@pytest.mark.parametrize("folder", parameters("wrong"))
def test_wrong_entry_is_well_formed(folder: Path) -> None:
    entry = expected(folder)
    named = "diagnosis" if "diagnosis" in entry else "diagnosis_unclear"
    expect_words(entry, {"program": str, "fails": str, "covers": list, named: str, "why": str})
    assert [name.split(".")[0] for name in source_names(folder)] == [entry["program"]]
    failing = [check for check in lab_of(folder).checks if check.id == entry["fails"]]
    assert [check.program for check in failing] == [entry["program"]]
    assert all(PITFALL.fullmatch(pitfall) for pitfall in entry["covers"])
    assert entry["why"].endswith(".")


@pytest.mark.parametrize("folder", parameters("right"))
def test_right_entry_is_well_formed(folder: Path) -> None:
    entry = expected(folder)
    expect_words(entry, {"programs": list, "design": str})
    assert entry["programs"]
    assert set(entry["programs"]) <= {program.name for program in lab_of(folder).programs}
    assert set(entry["programs"]) <= {name.split(".")[0] for name in source_names(folder)}


@pytest.mark.parametrize("lab", [pytest.param(lab, id=lab.id) for lab in LABS.values()])
def test_every_core_check_has_a_wrong_program(lab: Lab) -> None:
    failing = {expected(folder)["fails"] for folder in entries("wrong") if lab_of(folder) == lab}
    core = [check.id for check in lab.checks if check.level == "core"]
    assert [name for name in core if name not in failing] == []


@pytest.mark.slow
@pytest.mark.parametrize("folder", parameters("wrong"))
def test_wrong_program_fails_first_at_its_check(folder: Path) -> None:
    entry = expected(folder)
    checks = [check for check in lab_of(folder).checks if check.program == entry["program"]]
    last = [check.id for check in checks].index(entry["fails"])
    *before, named = judge(folder, checks[: last + 1])
    if named.status == "skip" and not any(outcome.status == "fail" for outcome in before):
        pytest.skip(named.reason)
    assert named.status == "fail", told([*before, named])
    assert all(outcome.status in ("pass", "skip") for outcome in before), told(before)


@pytest.mark.slow
@pytest.mark.parametrize("folder", parameters("right"))
def test_right_program_passes_every_check(folder: Path) -> None:
    programs = expected(folder)["programs"]
    checks = [check for check in lab_of(folder).checks if check.program in programs]
    outcomes = judge(folder, checks)
    statuses = {outcome.status for outcome in outcomes}
    assert "pass" in statuses and statuses <= {"pass", "skip"}, told(outcomes)


# --- again and again, while both processors are busy --------------------------------------------

ROUNDS = 20
# Checks at once, in each worker of pytest-xdist. More than there are processors: a check waits most
# of the time, so it is the other checks that keep the machine busy.
CROWD = 3


@pytest.mark.slow
@pytest.mark.parametrize("folder", parameters("wrong"))
def test_wrong_verdict_holds_under_load(folder: Path) -> None:
    entry = expected(folder)
    named = [check for check in lab_of(folder).checks if check.id == entry["fails"]]
    verdicts = [judge(folder, named, seed)[0] for seed in range(1, ROUNDS + 1)]
    if {outcome.status for outcome in verdicts} == {"skip"}:
        pytest.skip(verdicts[0].reason)
    assert {outcome.status for outcome in verdicts} == {"fail"}, told(verdicts)


@pytest.mark.slow
@pytest.mark.parametrize("folder", parameters("right"))
def test_right_verdict_holds_under_load(folder: Path) -> None:
    programs = expected(folder)["programs"]
    core = [
        check
        for check in lab_of(folder).checks
        if check.program in programs and check.level == "core"
    ]
    for seed in range(1, ROUNDS + 1):
        outcomes = judge(folder, core, seed, jobs=CROWD)
        assert {outcome.status for outcome in outcomes} <= {"pass", "skip"}, told(outcomes)
