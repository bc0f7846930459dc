"""Finds what the words on the command line stand for: labs, checks, programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from sockwork import paths
from sockwork.text import did_you_mean, printable

if TYPE_CHECKING:
    from sockwork.model import Check, Lab


def labs(word: str | None = None) -> list[Lab]:
    """All labs, or the one that `word` names by number, name or both."""
    from sockwork.labs import LabError, load_labs

    try:
        found = load_labs(paths.LABS)
    except LabError as error:
        raise click.UsageError(printable(str(error))) from error
    if word is None:
        return found
    for lab in found:
        if word in (lab.id, lab.name, str(lab.number), f"{lab.number:02}"):
            return [lab]
    known = [name for lab in found for name in (lab.name, lab.id)]
    present = f"; there are labs {_ranges(found)}" if found else "; there are no labs here"
    hint = did_you_mean(word, known) or present
    raise click.UsageError(f"no lab {printable(word)}{hint}")


def checks(lab: Lab, words: Sequence[str]) -> list[Check]:
    """The checks of `lab` that `words` name; all of them for no words."""
    known = {check.id: check for check in lab.checks}
    for word in words:
        if word not in known:
            hint = did_you_mean(word, known)
            raise click.UsageError(f"lab {lab.number:02} has no check {printable(word)}{hint}")
    return [check for check in lab.checks if not words or check.id in words]


def program(lab: Lab, name: str) -> str:
    """`name`, if `lab` has a program of that name."""
    known = [each.name for each in lab.programs]
    if name not in known:
        hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
        raise click.UsageError(f"lab {lab.number:02} has no program {printable(name)}{hint}")
    return name


def complete_lab(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of labs for the shell, without loading any."""
    names = [path.name for path in _lab_folders() if path.name.startswith(incomplete)]
    return [CompletionItem(name) for name in names]


def complete_check(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of the checks of the lab already named."""
    try:
        found = labs(context.params.get("lab"))
    except click.UsageError:
        return []
    ids = [check.id for lab in found for check in lab.checks]
    return [CompletionItem(each) for each in ids if each.startswith(incomplete)]


def _lab_folders() -> list[Path]:
    if not paths.LABS.is_dir():
        return []
    return sorted(path for path in paths.LABS.iterdir() if re.match(r"\d\d-", path.name))


def _ranges(found: Sequence[Lab]) -> str:
    return ", ".join(str(lab.number) for lab in found)
