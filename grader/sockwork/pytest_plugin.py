"""Performs the checks of a lab under pytest: `pytest labs/02-tcp-echo-server/checks`.

Every check becomes one test item. It is performed by the same Judge as everywhere; pytest only
chooses, orders and reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sockwork.engine import allow_descriptors, blocking, not_performed
from sockwork.judge import Conditions, Judge
from sockwork.labs import LabError, load_lab
from sockwork.model import Check, Failure, Lab, Launch, Outcome

_LINES = 10  # of evidence


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sockwork", "checks of the labs")
    group.addoption("--submission", metavar="FOLDER", help="the programs judged [solutions]")
    group.addoption("--seed", type=int, default=1, help="the seed of the checks' random values")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Any:
    """Files of checks are not modules of tests; nothing else is changed."""
    if module_path.parent.name == "checks" and (module_path.parents[1] / "lab.toml").is_file():
        return _Checks.from_parent(parent, path=module_path)
    return None


class _Court:
    """One lab in one session: its checks, the Judge, and what is known already."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self.lab = load_lab(folder)
        self._config = config
        self._judge: Judge | None = None
        self._outcomes: dict[str, Outcome] = {}

    def perform(self, check: Check) -> Outcome:
        failed = blocking(check, self._outcomes)
        if failed:
            outcome = not_performed(check, self._outcomes[failed])
        else:
            self._judge = self._judge or self._seated()
            outcome = self._judge.perform(check)
        self._outcomes[check.id] = outcome
        return outcome

    def _seated(self) -> Judge:
        allow_descriptors()
        launches = _launches(self.lab, self._config)
        return Judge(Conditions(self.lab, launches, self._config.getoption("--seed")))

    def close(self) -> None:
        if self._judge:
            self._judge.close()


_COURTS = pytest.StashKey[dict[Path, _Court]]()


def pytest_configure(config: pytest.Config) -> None:
    courts: dict[Path, _Court] = {}
    config.stash[_COURTS] = courts


def pytest_unconfigure(config: pytest.Config) -> None:
    for court in config.stash.get(_COURTS, {}).values():
        court.close()


def _launches(lab: Lab, config: pytest.Config) -> Mapping[str, Launch]:
    # Imported late: pytest loads this module also for tests that build nothing.
    from sockwork import build, paths, submission

    folder = Path(config.getoption("--submission") or paths.SOLUTIONS)
    programs = [program.name for program in lab.programs]
    optimised = {check.program for check in lab.checks if check.optimised}
    built = build.build(submission.load(folder, lab), programs, optimised=optimised)
    for name, program in built.items():
        if program.launch is None:
            raise pytest.UsageError(f"{name} does not compile:\n{program.log}")
    return {name: program.launch for name, program in built.items() if program.launch}


class _Checks(pytest.File):
    """One file of checks."""

    def collect(self) -> Iterator[pytest.Item]:
        courts = self.config.stash[_COURTS]
        folder = self.path.parents[1]
        if folder not in courts:
            try:
                courts[folder] = _Court(self.config, folder)
            except LabError as error:
                raise self.CollectError(str(error)) from error
        court = courts[folder]
        for check in court.lab.checks:
            if Path(check.function.__code__.co_filename) == self.path:
                yield _CheckItem.from_parent(self, name=check.id, check=check, court=court)


class _CheckItem(pytest.Item):
    """One check. It is performed as set-up, for pytest calls an error only what breaks there."""

    def __init__(self, *, check: Check, court: _Court, **others: Any) -> None:
        super().__init__(**others)
        self._check = check
        self._court = court
        self._outcome: Outcome | None = None

    def setup(self) -> None:
        self._outcome = self._court.perform(self._check)
        if self._outcome.status == "skip":
            pytest.skip(self._outcome.reason)
        if self._outcome.status == "error":
            pytest.fail(f"no verdict: {self._outcome.reason}", pytrace=False)

    def runtest(self) -> None:
        assert self._outcome
        if self._outcome.failure:
            pytest.fail(_text(self._check, self._outcome, self._outcome.failure), pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._check.function.__code__.co_firstlineno - 1, self.name


def _text(check: Check, outcome: Outcome, failure: Failure) -> str:
    return "\n".join(
        [
            f"{check.title}  [{failure.reason}]",
            f"  observed: {failure.observed}",
            f"  expected: {failure.expected}",
            *(f"    {line}" for line in failure.evidence[:_LINES]),
            "  why: " + " ".join(check.why.split()),
            "  steps:",
            *(f"    {step.time / 1e6:9.1f} ms  {step.text}" for step in outcome.steps),
        ]
    )
