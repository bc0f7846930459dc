"""Words made safe and fitting for a reader: bytes of strangers, nearest names, wrapped lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def printable(text: str) -> str:
    """`text` on one line, without anything that could steer a terminal or reorder letters."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def printable_bytes(content: bytes) -> str:
    """The same for bytes: what is not UTF-8 is shown as \\xNN."""
    return printable(content.decode(errors="backslashreplace"))


def _escaped(char: str) -> str:
    names = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    code = ord(char)
    return names.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " - did you mean echo-line?", or "" when nothing known is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" - did you mean {near[0]}?" if near else ""


def sentence(clause: str) -> str:
    """`clause` as a sentence; a name like echo_server keeps its first letter."""
    clause = clause.strip()
    first = clause.partition(" ")[0]
    start = clause[:1].upper() if first.isalpha() else clause[:1]
    return start + clause[1:] + ("" if clause.endswith((".", "?", "!")) else ".")
