"""Bytes in words: quoted, compared, counted."""

from __future__ import annotations

import os

_BEFORE = 16  # bytes shown before the first difference
_AFTER = 24  # and from it on
_NAMED = {0: "\\0", 9: "\\t", 10: "\\n", 13: "\\r", 34: '\\"', 92: "\\\\"}


def _escaped(data: bytes) -> str:
    parts = []
    for byte in data:
        plain = chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
        parts.append(_NAMED.get(byte, plain))
    return "".join(parts)


def quoted(data: bytes, limit: int = 60) -> str:
    """The bytes between quotes, control bytes escaped, at most `limit` of them."""
    more = "…" if len(data) > limit else ""
    return f'"{_escaped(data[:limit])}"{more}'


def amount(count: int, noun: str = "byte") -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def first_difference(expected: bytes, got: bytes) -> int:
    """The offset of the first byte that differs; where one is a prefix of the other, its length."""
    common = os.path.commonprefix([expected, got])  # bytes compare like strings here
    return len(common)


def _window(data: bytes, start: int, end: int) -> str:
    before = "…" if start else ""
    after = "…" if end < len(data) else ""
    return f'{before}"{_escaped(data[start:end])}"{after}'


def byte_diff(expected: bytes, got: bytes) -> tuple[str, ...]:
    """Three lines: what was expected, what came, and a caret under the first difference."""
    at = first_difference(expected, got)
    start, end = max(0, at - _BEFORE), at + _AFTER
    wanted, came = _window(expected, start, end), _window(got, start, end)
    column = len("…" if start else "") + 1 + len(_escaped(got[start:at]))
    width = max(len(wanted), len(came))
    return (
        f"expected  {wanted:<{width}}  {amount(len(expected))}",
        f"got       {came:<{width}}  {amount(len(got))}",
        f"          {' ' * column}^ byte {at:,}",
    )


def difference(expected: bytes, got: bytes) -> str:
    """One clause about the first difference of two unequal byte strings."""
    at = first_difference(expected, got)
    if at == len(got):
        return f"only {len(got):,} of {amount(len(expected))} came"
    if at == len(expected):
        return f"{amount(len(got) - at)} came beyond the {len(expected):,} expected"
    return f"byte {at:,} is {quoted(got[at:at + 1])} instead of {quoted(expected[at:at + 1])}"
