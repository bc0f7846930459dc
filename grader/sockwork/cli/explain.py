"""`sockwork explain`: the long text behind a code such as E-RST-UNREAD."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from sockwork.report.style import Style
from sockwork.text import did_you_mean, printable

if TYPE_CHECKING:
    from sockwork.diagnosis.entry import Entry


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from sockwork.diagnosis import CATALOGUE

    return [
        CompletionItem(code, help=entry.misconception)
        for code, entry in CATALOGUE.items()
        if code.startswith(incomplete.upper())
    ]


@click.command("explain")
@click.argument("code", required=False, shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def command(code: str | None, as_json: bool) -> None:
    """Explain a diagnosis: what is believed, what is so, how to see it.

    Without CODE all codes are listed, each with the mistaken belief behind it.
    """
    from sockwork.diagnosis import CATALOGUE

    entries = CATALOGUE if code is None else {(found := _known(code, CATALOGUE)).code: found}
    if as_json:
        click.echo(json.dumps([_fields(e) for e in entries.values()], indent=1, ensure_ascii=False))
        return
    style = Style.of(sys.stdout)
    lines = _list(style, CATALOGUE) if code is None else _text(style, next(iter(entries.values())))
    style.write(sys.stdout, lines)


def _known(word: str, entries: Mapping[str, Entry]) -> Entry:
    """The entry that `word` names, in capitals or not, with or without the E- in front."""
    code = word.upper()
    code = code if code.startswith("E-") else f"E-{code}"
    if code not in entries:
        hint = did_you_mean(code, entries) or "; ./sockwork explain lists all"
        raise click.UsageError(f"no code {printable(word) or repr('')}{hint}")
    return entries[code]


def _list(style: Style, entries: Mapping[str, Entry]) -> list[str]:
    wide = max(map(len, entries)) + 2
    lines = []
    for code, entry in entries.items():
        lines += style.wrapped(entry.misconception, code.ljust(wide), " " * wide)
    return lines


def _text(style: Style, entry: Entry) -> list[str]:
    parts = (
        ("Seen", entry.seen),
        ("Why", entry.why),
        ("Ask", entry.question),
        ("Example", entry.hints[2]),
    )
    lines = [
        style.paint(entry.code, "bold"),
        *style.wrapped(f"You may think: {entry.misconception}", "  "),
    ]
    for title, text in parts:
        lines += ["", *style.wrapped(text, f"  {title:8}", " " * 10)]
    look = [f"  {'See it':8}{entry.look[0]}", *(f"{'':10}{line}" for line in entry.look[1:])]
    lines += ["", *look, "", f"  {'Read':8}docs/concepts/{entry.concept}.md"]
    return lines


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        "code": entry.code,
        "misconception": entry.misconception,
        "seen": entry.seen,
        "why": entry.why,
        "question": entry.question,
        "hints": entry.hints,
        "look": entry.look,
        "concept": f"docs/concepts/{entry.concept}.md",
        "pitfalls": entry.pitfalls,
    }
