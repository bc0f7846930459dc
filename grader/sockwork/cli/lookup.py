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
    raise click.UsageError(f"no lab {_shown(word)}{hint}")


def checks(lab: Lab, words: Sequence[str]) -> list[Check]:
    """The checks of `lab` that `words` name; all of them for no words."""
    known = {check.id: check for check in lab.checks}
    for word in words:
        if word not in known:
            hint = did_you_mean(word, known)
            raise click.UsageError(f"lab {lab.number:02} has no check {_shown(word)}{hint}")
    return [check for check in lab.checks if not words or check.id in words]


def program(lab: Lab, name: str) -> str:
    """`name`, if `lab` has a program of that name."""
    known = [each.name for each in lab.programs]
    if name not in known:
        hint = did_you_mean(name, known) or f"; it has {', '.join(known)}"
        raise click.UsageError(f"lab {lab.number:02} has no program {printable(name)}{hint}")
    return name


# --- what the TAB key offers -------------------------------------------------------------------


def complete_lab(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Labs by number or name, without loading any."""
    found = []
    for path in _lab_folders():
        number, _, name = path.name.partition("-")
        if any(each.startswith(incomplete) for each in (path.name, number.lstrip("0"), name)):
            found.append(CompletionItem(path.name))
    return found


def complete_check(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of the checks of the lab already named, but for those that stand there too."""
    there = context.params.get("checks") or ()
    checks = [check for lab in _named(context) for check in lab.checks if check.id not in there]
    return [CompletionItem(c.id, help=c.title) for c in checks if c.id.startswith(incomplete)]


def complete_program(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Programs of the lab already named, or of all."""
    programs = [program for lab in _named(context) for program in lab.programs]
    return [
        CompletionItem(program.name, help=program.summary)
        for program in programs
        if program.name.startswith(incomplete)
    ]


def complete_need(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Capabilities that a check needs."""
    words = {word for lab in _named(context) for check in lab.checks for word in check.needs}
    return [CompletionItem(word) for word in sorted(words) if word.startswith(incomplete)]


def _named(context: click.Context) -> list[Lab]:
    # While the value of an option is missing, click leaves the arguments unparsed.
    left = [*context.args, None]
    try:
        return labs(context.params.get("lab") or left[0])
    except click.UsageError:
        return []


def _lab_folders() -> list[Path]:
    if not paths.LABS.is_dir():
        return []
    return sorted(path for path in paths.LABS.iterdir() if re.match(r"\d\d-", path.name))


def _shown(word: str) -> str:
    return printable(word) or "''"


def _ranges(found: Sequence[Lab]) -> str:
    return ", ".join(str(lab.number) for lab in found)
