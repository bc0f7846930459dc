"""`sockwork list`: the labs."""

from __future__ import annotations

import sys

import click

from sockwork.cli import lookup
from sockwork.report.style import Style


@click.command("list")
def command() -> None:
    """List the labs and their programs."""
    style = Style.of(sys.stdout)
    lines = []
    for lab in lookup.labs():
        names = ", ".join(program.name for program in lab.programs)
        lines.append(style.paint(f"{lab.number:02} {lab.title}", "bold"))
        lines += style.wrapped(lab.summary, "   ")
        lines += style.wrapped(f"{len(lab.checks)} checks: {names}", "   ")
    style.write(sys.stdout, lines)
