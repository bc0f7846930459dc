"""What the tests of the harness and the engine share: programs with known faults, and their judge."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sockwork.engine import allow_descriptors
from sockwork.harness import Bed, check
from sockwork.harness.declare import check_of
from sockwork.judge import Conditions, Judge
from sockwork.model import Check, Lab, Launch, Outcome, Program

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=86",
    "UBSAN_OPTIONS": "print_stacktrace=1:exitcode=86",
}
PROGRAMS = (
    Program("echo_server", ("HOST", "PORT"), "server", "sends every byte back"),
    Program("echo_client", ("HOST", "PORT"), "client", "sends its input, prints what comes back"),
)


def make_check(function: Callable[[Bed], None], **options: Any) -> Check:
    """The check that `function` performs; what a lab would say about it is filled in."""
    usual = {"title": "a title", "stage": "a stage", "program": "echo_server", "points": 1}
    hints = ("one", "two", "three")
    check(**{**usual, "hints": hints, "concept": "a-concept", **options})(function)
    made = check_of(function)
    assert made
    return made


def make_lab(folder: Path, checks: tuple[Check, ...] = ()) -> Lab:
    return Lab(99, "99-toys", "toys", "Toys", "toys", ("a stage",), PROGRAMS, folder, checks)


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs."""
    folder = tmp_path_factory.mktemp("toys")
    folder.chmod(0o755)  # the programs run as another user
    source = Path(__file__).parent / "programs" / "toy.c"
    flags = ["-std=c17", "-D_DEFAULT_SOURCE", "-g", "-O1", "-pthread"]
    sanitized = [*flags, "-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    for name, words in (("toy", sanitized), ("toy-plain", flags)):
        subprocess.run(["gcc", *words, str(source), "-o", str(folder / name)], check=True)
    return folder


def launches(toys: Path, mode: str = "right") -> dict[str, Launch]:
    """Both programs, wrong in the way that `mode` names."""
    made = {}
    for program in PROGRAMS:
        environment = {**SANITIZERS, "MODE": mode, "PROGRAM": program.name}
        plain = Launch(("./toy-plain",), toys, environment)
        made[program.name] = Launch(("./toy",), toys, environment, optimised=plain)
    return made


Perform = Callable[..., Outcome]


@pytest.fixture
def perform(toys: Path) -> Iterator[Perform]:
    """Performs one check function on a program of the given mode, in a testbed of its own."""
    allow_descriptors()
    with contextlib.ExitStack() as stack:

        def perform(
            function: Callable[[Bed], None],
            mode: str = "right",
            *,
            tier: str = "auto",
            keep: bool = False,
            **options: Any,
        ) -> Outcome:
            conditions = Conditions(
                make_lab(toys), launches(toys, mode), seed=7, tier=tier, keep=keep
            )
            judge = Judge(conditions)
            stack.callback(judge.close)
            return judge.perform(make_check(function, **options))

        yield perform
