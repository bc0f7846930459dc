"""`sockwork solution`: the reference sources of a lab."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from sockwork import paths
from sockwork.cli import lookup


@click.command("solution")
@click.argument("lab", shell_complete=lookup.complete_lab)
@click.argument("program", required=False, shell_complete=lookup.complete_program)
@click.option("--diff", is_flag=True, help="Show what to change in labs/ to get the solution.")
def command(lab: str, program: str | None, diff: bool) -> int:
    """Show the reference solution of LAB, or of one PROGRAM of it."""
    [found] = lookup.labs(lab)
    names = [lookup.program(found, program)] if program else [p.name for p in found.programs]
    for name in names:
        source = _source(paths.SOLUTIONS / found.id, name)
        if source is None:
            raise paths.SetupError(f"this copy of the kit holds no solution of {name}")
        if diff:
            sys.stdout.writelines(_difference(found.folder / source.name, source))
        else:
            if len(names) > 1:
                click.echo(f"// {source.relative_to(paths.ROOT)}")
            click.echo(source.read_text())
    return 0


def _source(folder: Path, program: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"{program}.*"))), None)


def _difference(mine: Path, solution: Path) -> list[str]:
    before = mine.read_text(errors="replace").splitlines(True) if mine.exists() else []
    after = solution.read_text().splitlines(True)
    old, new = (str(path.relative_to(paths.ROOT)) for path in (mine, solution))
    lines = difflib.unified_diff(before, after, old, new)
    return [line if line.endswith("\n") else line + "\n" for line in lines]
