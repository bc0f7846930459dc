"""`sockwork report`: the last run as one page for a browser."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sockwork import atomic, paths
from sockwork.cli import lookup
from sockwork.text import printable

if TYPE_CHECKING:
    from sockwork.report.record import Record


@click.command("report")
@click.argument("lab", required=False, shell_complete=lookup.complete_lab)
@click.option("--open", "opens", is_flag=True, help="Show the page in a browser.")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="Where to write the page; default: .sockwork/report.html.")  # fmt: skip
def command(lab: str | None, opens: bool, output: Path | None) -> int:
    """Write the last run, or the last one of LAB, as one HTML page.

    LAB is a number or a name; or the path of a results.json, or of a folder of `check --keep`.
    """
    from sockwork.report.html.page import render
    from sockwork.report.record import RecordError

    try:
        records = _records(lab)
        page = (output or paths.state() / "report.html").absolute()
        atomic.write(page, render(records, page).encode("utf-8", "backslashreplace"))
    except RecordError as error:
        raise click.UsageError(str(error)) from error
    except OSError as error:
        raise click.UsageError(f"the page cannot be written: {error.strerror}") from error
    click.echo(printable(min(str(page), os.path.relpath(page), key=len)))
    if opens and not webbrowser.open(page.as_uri()):
        click.echo("sockwork: no browser was found; open the file above", err=True)
    return 0


def _records(word: str | None) -> list[Record]:
    from sockwork.report import record

    path = Path(word) if word else None
    if path is not None and path.is_file():
        return record.read_results(path)
    if path is not None and path.is_dir() and os.sep in str(word):
        return record.read_kept(path)
    return record.last(lookup.labs(word)[0].id if word else None)
