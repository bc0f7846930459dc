"""@check: the description that stands above the function of a check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sockwork.model import Check, Level

CheckFunction = TypeVar("CheckFunction", bound=Callable[..., None])
_ATTRIBUTE = "sockwork_check"


def check(
    *,
    title: str,
    stage: str,
    program: str,
    points: float,
    hints: Sequence[str],
    concept: str,
    level: Level = "core",
    needs: Sequence[str] = (),
    after: Sequence[str] = (),
    covers: Sequence[str] = (),
    hosts: Sequence[str] = ("target", "peer"),
    names: str | None = None,
    resolver: str | None = None,
    optimised: bool = False,
) -> Callable[[CheckFunction], CheckFunction]:
    """Makes a function `test_…(bed)` a check; its docstring tells why the check is there."""

    def describe(function: CheckFunction) -> CheckFunction:
        described = Check(
            id=function.__name__.removeprefix("test_").replace("_", "-"),
            title=title,
            stage=stage,
            program=program,
            points=points,
            level=level,
            why=inspect.cleandoc(function.__doc__ or ""),
            hints=tuple(hints),
            concept=concept,
            covers=tuple(covers),
            needs=tuple(needs),
            after=tuple(after),
            hosts=tuple(hosts),
            names=names,
            resolver=resolver,
            function=function,
            optimised=optimised,
        )
        setattr(function, _ATTRIBUTE, described)
        return function

    return describe


def check_of(function: Any) -> Check | None:
    """The check that a function performs, if it is one."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, Check) else None
