"""Checks as pytest items: every verdict has its own outcome there, also on many workers."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from sockwork import paths

TOML = """
number = 7
name = "words"
title = "Words"
summary = "a program that says hello"
stages = ["only"]

[[programs]]
name = "hello"
arguments = ""
role = "tool"
summary = "says hello"
"""
CHECKS = """
from sockwork.harness import Bed, check

COMMON = {"stage": "only", "program": "hello", "points": 25, "concept": "x", "hints": ("a", "b", "c")}

@check(title="It says hello", **COMMON)
def test_says_hello(bed: Bed) -> None:
    '''A greeting is polite.'''
    bed.start().expect_lines("hello")

@check(title="It says bye", **COMMON)
def test_says_bye(bed: Bed) -> None:
    '''So is a farewell.'''
    bed.start().expect_lines("bye")

@check(title="It waves", after=("says-bye",), **COMMON)
def test_waves(bed: Bed) -> None:
    '''Never performed.'''

@check(title="It divides", **COMMON)
def test_divides(bed: Bed) -> None:
    '''A fault of the check.'''
    bed.step(str(1 / 0))
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    folder = tmp_path / "labs" / "07-words"
    (folder / "checks").mkdir(parents=True)
    (folder / "lab.toml").write_text(TOML)
    (folder / "checks" / "test_1_all.py").write_text(CHECKS)
    (folder / "test_other.py").write_text("def test_plain(): pass\n")
    submission = tmp_path / "submission" / "07-words"
    submission.mkdir(parents=True)
    (submission / "hello.py").write_text("print('hello')\n")
    return folder


def run_pytest(lab: Path, *words: str) -> tuple[dict[str, str], str]:
    """The outcome of each item, and all that pytest printed."""
    report = lab / "report.xml"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "sockwork.pytest_plugin",
        "-p",
        "no:cacheprovider",
    ]
    argv += [f"--submission={lab.parents[1] / 'submission'}", f"--junitxml={report}", *words]
    environment = {**os.environ, "PYTHONPATH": str(paths.ROOT / "grader")}
    done = subprocess.run(argv, cwd=lab, env=environment, capture_output=True, text=True)
    found = {}
    for case in xml.parse(report).iter("testcase"):
        tags = [child.tag for child in case]
        found[case.get("name", "")] = tags[0] if tags else "passed"
    return found, done.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")])
def test_verdicts_become_outcomes(lab: Path, workers: tuple[str, ...]) -> None:
    found, printed = run_pytest(lab, *workers)
    assert found == {
        "says-hello": "passed",
        "says-bye": "failure",
        "waves": "skipped",
        "divides": "error",
        "test_plain": "passed",
    }
    assert "observed: The output of hello differs" in printed
    assert "So is a farewell." in printed
    assert "no verdict: the check could not be performed: ZeroDivisionError" in printed


def test_items_are_chosen_by_their_ids(lab: Path) -> None:
    found, _ = run_pytest(lab, "checks/test_1_all.py::says-hello")
    assert found == {"says-hello": "passed"}


def test_a_lab_that_is_not_consistent_is_an_error(lab: Path) -> None:
    (lab / "lab.toml").write_text(TOML.replace("only", "another"))
    _, printed = run_pytest(lab, "checks")
    assert "lab.toml has no stage 'only'" in printed
