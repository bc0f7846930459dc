"""A submission: a folder that holds, for each lab, the sources of that lab's programs.

    FOLDER/02-tcp-echo-server/echo_server.cpp     (or .c, .py, .js)
    FOLDER/02-tcp-echo-server/submission.toml     (optional: how a program is run or built)

Everything in it is untrusted. A lab folder is read once, into memory, within fixed limits and
without following a symbolic link; what is built later is that snapshot, whatever happens to the
folder meanwhile.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sockwork.model import Lab
from sockwork.text import printable

MAX_FILE = 1 << 20
MAX_TOTAL = 8 << 20
MAX_FILES = 200
MAX_ENTRIES = 2000
MAX_DEPTH = 4

COMPILED = {".cpp": "c++", ".cc": "c++", ".cxx": "c++", ".c": "c"}
INTERPRETED = {".py": "python3", ".js": "node"}

# What stands in a lab's folder and is not the student's, or is made by tools.
IGNORED = {"checks", "README.md", "lab.toml", "node_modules", "build", "__pycache__"}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


class SubmissionError(Exception):
    """The submission cannot be read; the text is one line for the user."""


@dataclass(frozen=True)
class Source:
    """How one program comes to be: `sources` are compiled, or `run` is started as it is."""

    language: str  # "c++", "c" or "" for `run`
    sources: tuple[str, ...] = ()
    run: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """One lab's part of a submission, as it was when it was read."""

    name: str  # as shown and recorded
    programs: Mapping[str, Source]
    files: Mapping[str, bytes]  # by path relative to the lab's folder; the snapshot

    def files_of(self, program: str) -> dict[str, bytes]:
        """The files that can matter to `program`: all but the sources of the other ones."""
        own = self.programs[program].sources
        others = {
            name for source in self.programs.values() for name in source.sources if name not in own
        }
        return {name: content for name, content in self.files.items() if name not in others}


def lab_folder(folder: Path, lab: Lab) -> Path | None:
    """The folder of `lab` in a submission: its full id, number or name."""
    for name in (lab.id, f"{lab.number:02}", str(lab.number), lab.name):
        if (folder / name).is_dir():
            return folder / name
    return None


def load(folder: Path, lab: Lab) -> Submission:
    """Reads the part of the submission in `folder` that is for `lab`. Raises SubmissionError."""
    if not folder.is_dir():
        raise SubmissionError(f"{printable(str(folder))}: no such folder")
    place = lab_folder(folder, lab)
    if place is None:
        raise SubmissionError(f"{printable(str(folder))} holds no folder {lab.id}")
    if place.is_symlink():
        raise SubmissionError(f"{place.name} is a symbolic link; hand in the folder itself")
    files = _read_folder(place)
    programs = dict(_declared(files, lab))
    for program in lab.programs:
        if program.name not in programs:
            found = _by_name(program.name, files)
            if found is not None:
                programs[program.name] = found
    return Submission(folder.resolve().name, programs, files)


# --- reading -----------------------------------------------------------------------------------


def _read_folder(place: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    total = 0
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for path, content in _walk(top, PurePosixPath(), _Budget()):
            files[str(path)] = content
            total += len(content)
            if len(files) > MAX_FILES:
                raise SubmissionError(f"{place.name} holds more than {MAX_FILES} files")
            if total > MAX_TOTAL:
                raise SubmissionError(f"{place.name} holds more than {MAX_TOTAL >> 20} MiB")
    except OSError as error:
        raise SubmissionError(f"{place.name}: {error.strerror}") from error
    finally:
        os.close(top)
    return files


class _Budget:
    """Bounds the walk itself: a folder may hold any number of names."""

    def __init__(self) -> None:
        self._entries = 0

    def spend(self) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise SubmissionError(f"the folder holds more than {MAX_ENTRIES} names")


def _walk(
    folder: int, prefix: PurePosixPath, budget: _Budget
) -> Iterator[tuple[PurePosixPath, bytes]]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            budget.spend()
            names.append(entry.name)
    for name in sorted(names):
        if name in IGNORED or name.startswith("."):
            continue
        yield from _entry(folder, name, prefix, budget)


def _entry(
    folder: int, name: str, prefix: PurePosixPath, budget: _Budget
) -> Iterator[tuple[PurePosixPath, bytes]]:
    kind = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    shown = printable(str(prefix / name))
    source = PurePosixPath(name).suffix in COMPILED | INTERPRETED or name == "submission.toml"
    if source and not stat.S_ISREG(kind):
        what = "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
        raise SubmissionError(f"{shown} is {what}; hand in the file itself")
    if not _NAME.fullmatch(name):
        if source:
            rule = "at most 100 letters, digits and _.+-"
            raise SubmissionError(f"the name {shown} is not usable: {rule}")
        return
    if stat.S_ISDIR(kind):
        if len(prefix.parts) + 1 < MAX_DEPTH:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=folder)
            try:
                yield from _walk(inner, prefix / name, budget)
            finally:
                os.close(inner)
    elif stat.S_ISREG(kind):
        content = _read_file(folder, name)
        if b"\0" in content:
            if source:
                raise SubmissionError(f"{shown} is not a text file")
        elif len(content) > MAX_FILE:
            raise SubmissionError(f"{shown} is larger than {MAX_FILE >> 20} MiB")
        else:
            yield prefix / name, content


def _read_file(folder: int, name: str) -> bytes:
    # O_NONBLOCK: the file may have become a FIFO since it was looked at.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=folder), "rb") as stream:
        return stream.read(MAX_FILE + 1)


# --- programs ----------------------------------------------------------------------------------


def _by_name(program: str, files: Mapping[str, bytes]) -> Source | None:
    found = [program + suffix for suffix in COMPILED | INTERPRETED if program + suffix in files]
    if len(found) > 1:
        raise SubmissionError(f"{program} is there more than once: {', '.join(found)}")
    if not found:
        return None
    suffix = PurePosixPath(found[0]).suffix
    if suffix in INTERPRETED:
        return Source("", run=(INTERPRETED[suffix], found[0]))
    return Source(COMPILED[suffix], sources=(found[0],))


def _declared(files: Mapping[str, bytes], lab: Lab) -> Iterator[tuple[str, Source]]:
    if "submission.toml" not in files:
        return
    try:
        table = tomllib.loads(files["submission.toml"].decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SubmissionError(f"submission.toml: {printable(str(error))}") from error
    programs = table.get("programs", {})
    known = [program.name for program in lab.programs]
    if not isinstance(programs, dict) or set(table) - {"programs"}:
        raise SubmissionError("submission.toml: only [programs.NAME] tables may stand in it")
    for name, entry in programs.items():
        if name not in known:
            raise SubmissionError(
                f"submission.toml: {lab.id} has no program {printable(name)}; "
                f"it has {', '.join(known)}"
            )
        yield name, _entry_of(name, entry, files)


def _entry_of(name: str, entry: Any, files: Mapping[str, bytes]) -> Source:
    where = f"submission.toml: programs.{name}"
    if not isinstance(entry, dict) or len(entry) != 1 or not entry.keys() <= {"run", "sources"}:
        raise SubmissionError(f"{where} needs either run = [...] or sources = [...]")
    [(key, words)] = entry.items()
    if not isinstance(words, list) or not words or len(words) > 64:
        raise SubmissionError(f"{where}.{key} needs a list of 1 to 64 strings")
    if not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise SubmissionError(f"{where}.{key} needs a list of strings that are not empty")
    if key == "run":
        return Source("", run=tuple(words))
    for word in words:
        if word not in files or PurePosixPath(word).suffix not in COMPILED:
            raise SubmissionError(f"{where}: {printable(word)} is not a C or C++ source here")
    languages = {COMPILED[PurePosixPath(word).suffix] for word in words}
    if len(languages) > 1:
        raise SubmissionError(f"{where}: C and C++ sources cannot be mixed")
    return Source(languages.pop(), sources=tuple(words))
