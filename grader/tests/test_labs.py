"""Reading labs, and every way in which a lab is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sockwork import paths
from sockwork.labs import LabError, load_lab, load_labs

TOML = """
number = 7
name = "toys"
title = "Toys"
summary = "what toys are"
stages = ["begin", "end"]

[[programs]]
name = "toy"
arguments = "HOST PORT"
role = "server"
summary = "a toy"
"""
CHECK = """
from helper import POINTS
from sockwork.harness import Bed, check

@check(title="First", stage="begin", program="toy", points=POINTS, concept="x",
       hints=("a", "b", "c"))
def test_first_thing(bed: Bed) -> None:
    '''Why the first.'''

@check(title="Second", stage="end", program="toy", points=60, concept="x", hints=("a", "b", "c"),
       after=("first-thing",), needs=("link", "inet6"), covers=("P01",))
def test_second(bed: Bed) -> None:
    '''Why the second,
    in two lines.'''

@check(title="Third", stage="end", program="toy", points=5, concept="x", hints=("a", "b", "c"),
       level="challenge", hosts=("target", "peer", "third"), names="192.0.2.2 peer",
       resolver="192.0.2.2")
def test_third(bed: Bed) -> None:
    '''Why the third.'''
"""


def write_lab(root: Path, toml: str = TOML, check: str = CHECK, name: str = "07-toys") -> Path:
    folder = root / name
    (folder / "checks").mkdir(parents=True)
    (folder / "lab.toml").write_text(toml)
    (folder / "checks" / "helper.py").write_text("POINTS = 40\n")
    (folder / "checks" / "test_1_all.py").write_text(check)
    return folder


def test_a_lab_is_read(tmp_path: Path) -> None:
    folder = write_lab(tmp_path)
    (folder / "checks" / "test_2_more.py").write_text("")
    lab = load_lab(folder)
    assert (lab.number, lab.id, lab.name, lab.stages) == (7, "07-toys", "toys", ("begin", "end"))
    assert lab.programs[0].arguments == ("HOST", "PORT")
    assert [check.id for check in lab.checks] == ["first-thing", "second", "third"]
    first, second, third = lab.checks
    assert (first.points, first.level, first.hosts) == (40, "core", ("target", "peer"))
    assert second.why == "Why the second,\nin two lines."
    assert (second.after, second.needs) == (("first-thing",), ("link", "inet6"))
    assert (third.level, third.names, third.resolver) == (
        "challenge",
        "192.0.2.2 peer",
        "192.0.2.2",
    )


def test_files_and_labs_come_in_order(tmp_path: Path) -> None:
    parts = CHECK.split("@check")
    folder = write_lab(tmp_path, check=parts[0] + "@check" + parts[1])
    rest = "@check".join([parts[0], *parts[2:]])
    (folder / "checks" / "test_2_rest.py").write_text(rest)
    write_lab(tmp_path, TOML.replace("7", "2"), name="02-toys")
    labs = load_labs(tmp_path)
    assert [lab.id for lab in labs] == ["02-toys", "07-toys"]
    assert [check.id for check in labs[1].checks] == ["first-thing", "second", "third"]


def test_a_helper_of_one_lab_is_not_that_of_another(tmp_path: Path) -> None:
    write_lab(tmp_path)
    other = write_lab(tmp_path, TOML.replace("7", "8"), name="08-toys")
    (other / "checks" / "helper.py").write_text("POINTS = 39\n")
    with pytest.raises(LabError, match="08-toys: the core checks make 99 points, not 100"):
        load_labs(tmp_path)
    assert "helper" not in sys.modules
    assert str(other / "checks") not in sys.path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('stage="begin"', 'stage="start"', "no stage 'start'"),
        ('program="toy", points=60', 'program="car", points=60', "no program 'car'"),
        ("points=60", "points=50", "make 90 points"),
        ("points=5,", "points=0,", "has no points"),
        ('hints=("a", "b", "c"))', 'hints=("a", "b"))', "needs 3 hints"),
        ('hints=("a", "b", "c"))', 'hints=("a", " ", "c"))', "needs 3 hints"),
        ("'''Why the first.'''", "pass", "no docstring"),
        ('after=("first-thing",)', 'after=("third",)', "'third' is not a check before it"),
        ('after=("first-thing",)', 'after=("nothing",)', "'nothing' is not a check before it"),
        ('needs=("link", "inet6")', 'needs=("wings",)', "no capability 'wings'"),
        ('hosts=("target", "peer", "third")', 'hosts=("peer",)', "always there"),
        ("def test_third", "def test_second", "test_second stands there twice"),
        ('@check(title="Third"', 'def test_bare(bed): pass\n\n@check(title="Third"', "no @check"),
        ("from helper", "from nowhere", "ModuleNotFoundError"),
        ("points=60", "points=60, colour=1", "TypeError"),
    ],
)
def test_a_check_that_is_not_consistent(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in CHECK
    with pytest.raises(LabError, match=message):
        load_lab(write_lab(tmp_path, check=CHECK.replace(old, new)))


def test_two_checks_of_one_name(tmp_path: Path) -> None:
    folder = write_lab(tmp_path)
    (folder / "checks" / "test_2_again.py").write_text(CHECK)
    with pytest.raises(LabError, match="two checks are named first-thing"):
        load_lab(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("number = 7", "number = 8", "not named 08-toys"),
        ("number = 7", 'number = "7"', "number is missing or is not of type int"),
        ('role = "server"', 'role = "friend"', "role is one of"),
        ("stages", "phases", "the keys are"),
        ('arguments = "HOST PORT"', "arguments = 2", "arguments is missing or is not of type str"),
        ('summary = "a toy"', "", "summary is missing"),
        ("number = 7", "number = ", "lab.toml"),
    ],
)
def test_a_lab_toml_that_is_not_right(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        load_lab(write_lab(tmp_path, toml=TOML.replace(old, new)))


def test_the_labs_of_the_kit_are_consistent() -> None:
    assert load_labs(paths.LABS)
