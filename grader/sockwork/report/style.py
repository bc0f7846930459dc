"""What a terminal can show: colours, width, and letters beyond ASCII."""

from __future__ import annotations

import locale
import os
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TextIO

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "bold": "1", "dim": "2"}
_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "·": "-",
        "…": "...",
        "–": "-",
        "—": "-",
        "─": "-",
        "═": "=",
        "│": "|",
        "▶": ">",
        "◀": "<",
        "→": ">",
        "←": "<",
        "µ": "u",
        "§": "section ",
        "“": '"',
        "”": '"',
        "‘": "'",
        "’": "'",
    }
)


@dataclass(frozen=True)
class Style:
    """How to write to one stream. Immutable."""

    colour: bool
    unicode: bool
    width: int

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str] = os.environ) -> Style:
        """The style for `stream`: plain unless it is a terminal that can do more."""
        terminal = stream.isatty()
        plain = bool(environment.get("NO_COLOR")) or environment.get("TERM", "dumb") == "dumb"
        # The user's locale tells what the terminal takes; Python itself may run in UTF-8 mode.
        unicode = locale.getencoding().lower().replace("-", "") == "utf8"
        width = shutil.get_terminal_size((80, 24)).columns if terminal else 80
        return cls(terminal and not plain, unicode, max(40, min(width, 100)))

    def paint(self, text: str, *colours: str) -> str:
        """`text` in these colours, where colours are shown."""
        if not self.colour or not colours:
            return text
        codes = ";".join(_COLOURS[colour] for colour in colours)
        return f"\x1b[{codes}m{text}\x1b[0m"

    def fit(self, text: str) -> str:
        """`text` with only letters that the stream can take."""
        if self.unicode:
            return text.encode("utf-8", "backslashreplace").decode()
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode()

    def write(self, stream: TextIO, lines: Iterable[str]) -> None:
        """Writes the lines and lets the reader see them at once."""
        for line in lines:
            stream.write(self.fit(line).rstrip() + "\n")
        stream.flush()

    def wrapped(self, text: str, first: str, rest: str | None = None) -> list[str]:
        """`text` in lines of the stream's width, each after its indent."""
        rest = " " * len(first) if rest is None else rest
        return textwrap.wrap(
            " ".join(text.split()),
            self.width,
            initial_indent=first,
            subsequent_indent=rest,
            break_on_hyphens=False,
        )

    def clipped(self, text: str, indent: int = 0) -> str:
        """`text` on one line of the stream's width."""
        room = self.width - indent
        return " " * indent + (text if len(text) <= room else text[: room - 1] + "…")
