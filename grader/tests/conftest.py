"""Fixtures of the tests of the harness and the engine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sockwork.engine import allow_descriptors
from sockwork.harness import Bed
from sockwork.judge import Conditions, Judge
from sockwork.model import Launch, Outcome
from toys import Perform, launches, make_check, make_lab


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
            launched: Mapping[str, Launch] | None = None,
            **options: Any,
        ) -> Outcome:
            conditions = Conditions(
                make_lab(toys), launched or launches(toys, mode), seed=7, tier=tier, keep=keep
            )
            judge = Judge(conditions)
            stack.callback(judge.close)
            return judge.perform(make_check(function, **options))

        yield perform
