"""Grading one lab: from a submission's files to the outcome of every check.

The one function behind `check` and everything that grades many: what comes out depends on the
submission's bytes, the kit, the lab, the seed and the tier, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass

from sockwork import paths
from sockwork.build import ENVIRONMENT, Built
from sockwork.model import Check, Failure, Lab, Launch, Outcome


@dataclass(frozen=True)
class Settings:
    """What a run is told besides the lab and the programs."""

    seed: int = 1
    jobs: int = 2
    without: Collection[str] = ()
    tier: str = "auto"
    keep: bool = False  # traces and captures of the checks that passed, too


def command_as_program(command: str, program: str) -> dict[str, Built]:
    """The program that `sh -c 'COMMAND' PROGRAM ARGUMENT…` is."""
    folder = paths.cache() / "empty"
    folder.mkdir(parents=True, exist_ok=True)
    argv = ("sh", "-c", command, program)
    return {program: Built(program, Launch(argv, folder, ENVIRONMENT, shell=True), "")}


def judge(
    lab: Lab, checks: Sequence[Check], built: Mapping[str, Built], settings: Settings
) -> Generator[Outcome, None, None]:
    """Performs the checks; yields each outcome when it is known. Close it to stop early."""
    from sockwork import engine

    launches = {}
    for name, each in built.items():
        if each.launch is None:
            yield from (_not_compiled(check, each) for check in checks if check.program == name)
        else:
            launches[name] = each.launch
    yield from engine.run(
        [check for check in checks if check.program in launches or check.program not in built],
        launches,
        lab=lab,
        seed=settings.seed,
        jobs=settings.jobs,
        without=settings.without,
        tier=settings.tier,
        keep=settings.keep,
        deadline_scale=1.0,
    )


def _not_compiled(check: Check, built: Built) -> Outcome:
    failure = Failure(
        reason="does-not-compile",
        observed=f"{check.program} does not compile",
        expected="a program that compiles with our flags",
        evidence=built.first_error,
    )
    return Outcome(check, "fail", 0.0, reason=failure.reason, failure=failure)
