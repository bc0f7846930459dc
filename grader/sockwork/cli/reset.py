"""`sockwork reset`: puts the starters of a lab back, after saving what is there."""

from __future__ import annotations

import shutil
import time
from pathlib import Path, PurePosixPath

import click

from sockwork import paths
from sockwork.cli import lookup
from sockwork.git import git


@click.command("reset")
@click.argument("lab", shell_complete=lookup.complete_lab)
@click.option("--from", "commit", default="HEAD", show_default=True, metavar="COMMIT", help="The commit whose starters to restore.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(lab: str, commit: str, yes: bool) -> int:
    """Restore the starters of LAB, with a back-up.

    The starters come from git. Files that differ are backed up first; files that git does not
    know are left alone.
    """
    [found] = lookup.labs(lab)
    changed = _changed(found.folder, commit)
    if not changed:
        click.echo(f"nothing to restore: the starters of {found.id} are as in {commit}")
        return 0
    for path in changed:
        click.echo(f"changed: {path.relative_to(paths.ROOT)}")
    if not yes and not click.confirm("Restore the starters? A back-up is made"):
        return 0
    backup = _back_up(changed, found.id)
    for path, content in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    click.echo(f"restored {len(changed)}; back-up: {backup.relative_to(paths.ROOT)}")
    return 0


def _changed(folder: Path, commit: str) -> dict[Path, bytes]:
    """The learner's files of the lab that differ from `commit`, with their content there."""
    from sockwork.submission import IGNORED

    inside = folder.relative_to(paths.ROOT)
    listed = git("ls-tree", "-r", "-z", "--name-only", f"{commit}:{inside}")
    changed = {}
    for name in filter(None, listed.decode().split("\0")):
        if IGNORED.isdisjoint(PurePosixPath(name).parts):
            path, content = folder / name, git("show", f"{commit}:{inside}/{name}")
            if not path.is_file() or path.read_bytes() != content:
                changed[path] = content
    return changed


def _back_up(changed: dict[Path, bytes], lab: str) -> Path:
    place = paths.state() / "backup" / f"{lab}-{time.strftime('%Y%m%d-%H%M%S')}"
    number = 1
    while place.exists():  # two within a second
        number += 1
        place = place.with_name(f"{place.name}-{number}")
    place.mkdir(parents=True)
    for path in changed:
        if path.is_file():
            target = place / path.relative_to(paths.LABS / lab)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return place
