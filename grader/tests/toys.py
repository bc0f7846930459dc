"""Toy programs with known faults, and the lab they belong to: for the tests of the harness."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sockwork.harness import Bed, check
from sockwork.harness.declare import check_of
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
    described: dict[str, Any] = {
        "title": "a title",
        "stage": "a stage",
        "program": "echo_server",
        "points": 1,
        "hints": ("one", "two", "three"),
        "concept": "a-concept",
        **options,
    }
    check(**described)(function)
    made = check_of(function)
    assert made
    return made


def make_lab(folder: Path, checks: tuple[Check, ...] = ()) -> Lab:
    return Lab(99, "99-toys", "toys", "Toys", "toys", ("a stage",), PROGRAMS, folder, checks)


def launches(toys: Path, mode: str = "right") -> dict[str, Launch]:
    """Both programs, wrong in the way that `mode` names."""
    made = {}
    for program in PROGRAMS:
        environment = {**SANITIZERS, "MODE": mode, "PROGRAM": program.name}
        plain = Launch(("./toy-plain",), toys, environment)
        made[program.name] = Launch(("./toy",), toys, environment, optimised=plain)
    return made


Perform = Callable[..., Outcome]
