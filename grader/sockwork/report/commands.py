"""Commands to paste: that ask for a check again, and that start a program by hand."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from sockwork.build import Built
from sockwork.model import Lab, Outcome
from sockwork.text import printable


@dataclass(frozen=True)
class Rerun:
    """How this run was asked for, so that one check of it can be asked for again."""

    options: tuple[str, ...]  # of `check`, without the lab and the checks
    seed: int

    def command(self, lab: Lab, check: str = "") -> str:
        """The line to paste."""
        words = ["./sockwork", "check", str(lab.number), *([check] if check else [])]
        return shlex.join([*words, *self.options, "--seed", str(self.seed)])


def by_hand(lab: Lab, outcome: Outcome, built: Built | None) -> list[str]:
    """Commands for one or two terminals, on loopback; none where the names are the check's own."""
    check = outcome.check
    if not outcome.command or built is None or built.launch is None or "names" in check.needs:
        return []
    launch = built.launch
    words = outcome.command[len(launch.argv) :]
    arguments = [shlex.quote(printable(_on_loopback(word))) for word in words]
    program = next(each for each in lab.programs if each.name == check.program)
    variables = zip(program.arguments, arguments) if launch.shell else ()
    settings = [f"{name}={value}" for name, value in variables]
    commands = [" ".join([*settings, _start_of(built), *arguments])]
    if len(arguments) < 2 or program.role == "tool":
        return commands
    peer = ["nc", *(["-l"] if program.role == "client" else []), *arguments[-2:]]
    commands.insert(0 if program.role == "client" else 1, " ".join(peer))
    return commands


def _on_loopback(word: str) -> str:
    """The hosts of a check exist only while it runs; by hand, the machine's own loopback serves."""
    if re.fullmatch(r"192\.0\.2\.\d+", word):
        return "127.0.0.1"
    return "::1" if word.startswith("2001:db8::") else word


def _start_of(built: Built) -> str:
    assert built.launch is not None
    if not built.launch.argv[0].startswith("./"):
        return shlex.join(built.launch.argv)
    return shell_path(built.launch.directory / built.program)


def shell_path(path: Path) -> str:
    """A path as one would type it."""
    text, home = str(path), str(Path.home())
    if text.startswith(home + "/"):
        return "~" + shlex.quote(text[len(home) :])
    return shlex.quote(text)
