"""Where things are: the clone, the cache, and what Sockwork keeps for the user."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LABS = ROOT / "labs"
SOLUTIONS = ROOT / "solutions"
HEADERS = ROOT / "common" / "include"


def cache() -> Path:
    """The folder for what can be made again (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification tells to ignore a relative path.
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "sockwork"


def state() -> Path:
    """The folder for back-ups and kept evidence: in the clone, so that it is easy to find."""
    folder = ROOT / ".sockwork"
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    return folder


class SetupError(Exception):
    """Something that the launcher brings is not there; the text is one line for the user."""
