"""results.json: points, order, the schema, and a file that exists whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sockwork import atomic, paths, results
from sockwork.build import Built
from sockwork.model import Check, Failure, Lab, Launch, Outcome, Program, Verdict
from sockwork.results import Evidence, LabRun, Tally

SCHEMA = json.loads(results.SCHEMA.read_text())


def make_check(id: str, points: float = 10, level: Any = "core") -> Check:
    return Check(
        id=id,
        title=f"title of {id}",
        stage="listen",
        program="echo_server",
        points=points,
        level=level,
        why="why",
        hints=("a question?",),
        concept="concept",
        covers=(),
        needs=(),
        after=(),
        hosts=("target", "peer"),
        names=None,
        resolver=None,
        function=print,
    )


def make_lab(*checks: Check) -> Lab:
    programs = (Program("echo_server", ("HOST", "PORT"), "server", ""),)
    folder = Path("labs/02-x")
    return Lab(2, "02-x", "x", "X", "", ("listen",), programs, folder, checks)


def outcome(check: Check, status: Verdict) -> Outcome:
    failure = Failure("wrong-bytes", "nothing came", "all bytes") if status == "fail" else None
    reason = {"pass": "", "fail": "wrong-bytes"}.get(status, "needs a link")
    return Outcome(check, status, 0.5, reason=reason, failure=failure)


def as_json(*outcomes: Outcome, **evidence: Evidence) -> dict[str, Any]:
    lab = make_lab(*(each.check for each in outcomes))
    built = {"echo_server": Built("echo_server", Launch(("./x",), Path("/")), "said\n")}
    run = LabRun(lab, outcomes, built, evidence)
    folder = Path("/out")
    return results.as_json([run], seed=7, tier="T1", submission="mine", folder=folder)


def one_of_each() -> list[Outcome]:
    statuses: list[Verdict] = ["pass", "fail", "skip", "error"]
    return [outcome(make_check(f"is-{status}"), status) for status in statuses]


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_verdict_is_valid_and_says_what_happened() -> None:
    made = as_json(*one_of_each())
    jsonschema.Draft202012Validator(SCHEMA).validate(made)
    [lab] = made["labs"]
    assert [check["status"] for check in lab["checks"]] == ["pass", "fail", "skip", "error"]
    assert [check["message"] for check in lab["checks"]] == [
        "",
        "Nothing came. Expected: all bytes",
        "Needs a link.",
        "Needs a link.",
    ]
    assert lab["build"] == {"status": "ok", "log": "said\n"}


def test_only_a_fail_loses_points_and_a_challenge_adds_some() -> None:
    outcomes = one_of_each()
    outcomes += [outcome(make_check(f"c-{s}", 5, "challenge"), s) for s in ("pass", "fail")]  # type: ignore[arg-type]
    assert Tally.of(outcomes) == Tally(earned=15, lost=10, not_judged=20, core=40)
    [lab] = as_json(*outcomes)["labs"]
    assert (lab["points"], lab["max_points"]) == (15, 40)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["tier"], "T9"),
        (["labs", 0, "lab"], "x"),
        (["labs", 0, "checks", 0, "status"], "ok"),
        (["labs", 0, "checks", 0, "message"], "a pass has none"),
        (["labs", 0, "checks", 1, "points"], 3),
        (["labs", 0, "checks", 1, "message"], ""),
        (["labs", 0, "checks", 0, "diagnosis"], "RST"),
        (["labs", 0, "checks", 0, "more"], 1),
    ],
)
def test_the_schema_refuses_what_is_wrong(path: list[Any], value: Any) -> None:
    made: Any = as_json(*one_of_each())
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(made)


def test_the_exit_status_tells_a_failure_from_what_could_not_be_judged() -> None:
    passed, failed, skipped, error = one_of_each()
    assert results.exit_status([passed, skipped]) == 0
    assert results.exit_status([passed, failed, error]) == 1
    assert results.exit_status([passed, error]) == 4
    assert results.exit_status([skipped]) == results.exit_status([]) == 4


def test_outcomes_are_put_into_handout_order() -> None:
    outcomes = one_of_each()
    lab = make_lab(*(each.check for each in outcomes))
    assert results.in_order(lab, reversed(outcomes)) == tuple(outcomes)


def test_evidence_is_told_relative_to_the_file() -> None:
    first = outcome(make_check("one"), "pass")
    made = as_json(first, one=Evidence(pcap=Path("/out/e/one.pcap")))
    evidence = made["labs"][0]["checks"][0]["evidence"]
    assert evidence == {"trace": None, "pcap": "e/one.pcap"}


def test_bytes_that_are_no_text_survive_the_file(tmp_path: Path) -> None:
    strange = b"\xff \x1b[2J \xe2\x9c\x93".decode(errors="surrogateescape")
    failed = outcome(make_check("one"), "fail")
    assert failed.failure is not None
    failed = replace(failed, failure=replace(failed.failure, observed=strange))
    results.write(tmp_path / "r.json", as_json(failed))
    read = json.loads((tmp_path / "r.json").read_bytes())
    assert read["labs"][0]["checks"][0]["message"].startswith(strange)
    assert results.statuses(tmp_path / "r.json") == ["fail"]


# --- whole or not at all -----------------------------------------------------------------------


def test_a_writer_that_is_killed_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    target.write_text("old")
    script = f"""
import os, sys
sys.path.insert(0, {str(paths.ROOT / "grader")!r})
from pathlib import Path
from sockwork.atomic import whole_file
with whole_file(Path({str(target)!r})) as descriptor:
    os.write(descriptor, b"half")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"r.json": "old"}


@pytest.mark.parametrize("nameless", [True, False])
def test_a_file_is_replaced_whole_and_a_failed_one_leaves_nothing(
    nameless: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not nameless:  # as on a file system without O_TMPFILE
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)
    target = tmp_path / "deep" / "file"
    atomic.write(target, b"one")
    atomic.write(target, b"two", 0o755)
    with pytest.raises(RuntimeError):
        with atomic.whole_file(target) as descriptor:
            os.write(descriptor, b"half")
            raise RuntimeError
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    assert target.read_bytes() == b"two" and target.stat().st_mode & 0o777 == 0o755
