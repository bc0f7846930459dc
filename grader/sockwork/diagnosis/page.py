"""docs/diagnosis.md, made from the catalogue."""

from __future__ import annotations

from itertools import groupby

from sockwork.diagnosis import CATALOGUE
from sockwork.diagnosis.entry import Entry

_HEAD = """\
# Diagnosis

A failed check tells what was observed and what was expected. Where the evidence shows *why*, the
mistake also has a code, such as E-RST-UNREAD, and each code stands for one mistaken belief.
`./sockwork explain E-RST-UNREAD` tells all about it; `./sockwork explain` lists the codes.

A code is given only if the trace shows the cause: the call that was made or left out, the bytes
that came and were not read, the option that was set. Where several causes fit and none is declared
to be the more specific one, there is no code; a wrong name is worse than none. The evidence needs
the record of system calls, so a check that was performed without it has a code only where the
kernel's tables and the wire say enough.

This page is made from the rules in `grader/sockwork/diagnosis/rules`: one function a code. What
the function returns is shown with the failure: at most ten lines, the calls with the line of the
program that made them, the packet where something else was expected, and one question. The
function must find nothing in the trace of a right program, and every code is that of a wrong
program in `grader/corpus/wrong`, whose `expect.toml` names it.
"""
_TABLE = "| code | what is believed | mistakes |\n| --- | --- | --- |\n"


def page() -> str:
    """The whole page: the codes in a table for each concept."""
    entries = sorted(CATALOGUE.values(), key=lambda entry: (entry.concept, entry.code))
    parts = [_HEAD]
    for concept, group in groupby(entries, key=lambda entry: entry.concept):
        title = concept.replace("-", " ").capitalize()
        rows = "".join(map(_row, group))
        parts.append(f"\n## {title}\n\nSee [{title}](concepts/{concept}.md).\n\n{_TABLE}{rows}")
    beats = "".join(_order(entry) for entry in CATALOGUE.values())
    parts.append(f"\n## Which code is the more specific one\n\n{beats}")
    return "".join(parts)


def _row(entry: Entry) -> str:
    belief = entry.misconception.replace("|", "\\|")
    return f"| {entry.code} | {belief} | {' '.join(entry.pitfalls)} |\n"


def _order(entry: Entry) -> str:
    return "".join(
        f"- {entry.code} rather than {other}: {why}.\n" for other, why in entry.beats.items()
    )
