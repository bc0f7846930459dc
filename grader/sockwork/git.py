"""Questions to git about the clone."""

from __future__ import annotations

import subprocess

from sockwork import paths
from sockwork.text import printable


def git(*words: str) -> bytes:
    """What git answers in the clone. Raises SetupError with git's own words."""
    try:
        done = subprocess.run(["git", "-C", str(paths.ROOT), *words], capture_output=True)
    except FileNotFoundError as error:
        raise paths.SetupError("git is not installed") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise paths.SetupError(f"git: {printable(said[-1]) if said else 'failed'}")
    return done.stdout
