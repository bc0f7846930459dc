"""The figure in a terminal: five columns of text, never wider than asked for."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size

from sockwork.figure.conversation import Side
from sockwork.figure.layout import Cell, Layout, Row
from sockwork.figure.words import moment

_TIME: Final = 10
_WIRE: Final = 22
_LEAST: Final = 40
_EXPECTED: Final = 3  # lines of it
_ASCII: Final = str.maketrans(
    {"─": "-", "═": "=", "▶": ">", "◀": "<", "µ": "u", "×": "x", "✗": "x", "·": ".", "…": "."}
)
INFERRED: Final = "~"  # in front of a state that nothing observed


def lines(layout: Layout, width: int = 80, unicode: bool = True, max_lines: int = 40) -> list[str]:
    """The figure in at most `max_lines` lines; what does not fit is announced."""
    drawn = _Drawing(max(_LEAST, width)).lines(layout, max(8, max_lines))
    if not unicode:
        drawn = [_ascii(line) for line in drawn]
    return [_clipped(line, max(_LEAST, width)).rstrip() for line in drawn]


def _ascii(line: str) -> str:
    return line.translate(_ASCII).encode("ascii", "replace").decode()


class _Drawing:
    """The widths of the columns, and how a row is drawn in them."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._wire = min(_WIRE, max(12, width // 4))
        self._side = (width - _TIME - self._wire - 2) // 2

    def lines(self, layout: Layout, most: int) -> list[str]:
        head = self._head(layout)
        earlier = [None, *(row.time for row in layout.rows)]
        blocks = [
            self._row(row, "" if row.time == before else moment(row.time))
            for row, before in zip(layout.rows, earlier)
        ]
        foot = [self._indented(f"· {notice}") for notice in layout.notices]
        acks = sum(len(row.wire.acks) for row in layout.rows if row.wire)
        if acks:
            foot.append(self._indented(f"· pure acknowledgements not shown: {acks}"))
        inferred = any(
            change and not change.observed
            for row in layout.rows
            for change in (row.client.change, row.server.change)
        )
        if inferred:
            foot.append(self._indented(f"{INFERRED} a state concluded from packets and calls"))
        room = most - len(head) - len(foot)
        return [*head, *_fitting(layout, blocks, room, self._indented("")), *foot]

    def _head(self, layout: Layout) -> list[str]:
        names, places = zip(layout.head("client"), layout.head("server"))
        transport = layout.conversation.transport.upper() if layout.conversation else ""
        titles = (self._columns("", names[0], "wire".center(self._wire), names[1]),)
        return [*titles, self._columns("", places[0], transport.center(self._wire), places[1])]

    def _row(self, row: Row, time: str) -> list[str]:
        left, right = self._cell(row.client), self._cell(row.server)
        wire = self._wires(row)
        height = max(len(left), len(right), len(wire), 0 if row.expected else 1)
        drawn = []
        for i in range(height):
            parts = [column[i] if i < len(column) else "" for column in (left, wire, right)]
            drawn.append(self._columns(time if i == 0 else "", *parts))
        if row.expected is not None:
            time = "" if drawn else time
            said = textwrap.wrap(f"✗ expected: {row.expected}", self._width - _TIME - 2)[:_EXPECTED]
            drawn += [f"{_fit(t, _TIME - 1, True)} {line}" for t, line in zip([time, "", ""], said)]
        return drawn

    def _columns(self, time: str, left: str, wire: str, right: str) -> str:
        parts = (_fit(time, _TIME - 1, True), _fit(left, self._side), _fit(wire, self._wire))
        return " ".join((*parts, _clipped(right, self._side)))

    def _cell(self, cell: Cell) -> list[str]:
        """The texts, and the new state at the right edge, beside the last of them if it fits."""
        drawn = []
        for text in cell.texts:
            mark = "✗ " if text.trouble and text.kind != "fact" else ""
            drawn += self._wrapped(mark + text.text)
        if cell.change is None:
            return drawn
        state = ("" if cell.change.observed else INFERRED) + cell.change.to
        last = drawn.pop() if drawn else ""
        gap = self._side - cell_len(last) - len(state)
        if last and gap < 1:
            return [*drawn, last, " " * (self._side - len(state)) + state]
        return [*drawn, last + " " * gap + state]

    def _wrapped(self, text: str) -> list[str]:
        """One line, or two, of which the second is cut."""
        if cell_len(text) <= self._side:
            return [text]
        head = text[: self._side + 1].rpartition(" ")[0].rstrip()
        if not head or cell_len(head) > self._side:
            return [_clipped(text, self._side)]
        return [head, _clipped(" " + text[len(head) :].lstrip(), self._side)]

    def _wires(self, row: Row) -> list[str]:
        drawn = []
        if row.landing:
            drawn.append(self._arrow(f"{row.landing.label} arrives", row.landing.sender, "·", True))
        if row.wire is None:
            return drawn
        wire = row.wire
        line = "═" if wire.kind in ("reset", "other") else "─"
        drawn.append(
            self._arrow(
                wire.label, wire.sender, line, wire.arrives is not None, lost=wire.arrives is None
            )
        )
        if wire.remark:
            drawn.append(_clipped(wire.remark, self._wire).center(self._wire))
        return drawn

    def _arrow(self, label: str, sender: Side, line: str, arrives: bool, lost: bool = False) -> str:
        tip = "✗" if lost else "▶" if sender == "client" else "◀"
        label = _clipped(label, self._wire - 6)
        left = self._wire - cell_len(label) - 3
        if sender == "client":
            start = min(2, left)
            return f"{line * start} {label} {line * (left - start)}{tip}"
        end = min(2, left)
        return f"{tip}{line * (left - end)} {label} {line * end}"

    def _indented(self, text: str) -> str:
        return " " * _TIME + text


def _fitting(layout: Layout, blocks: Sequence[list[str]], room: int, indent: str) -> list[str]:
    """The blocks around the row that matters most, and how many rows are not among them."""
    if sum(map(len, blocks)) <= room:
        return [line for block in blocks for line in block]
    start = end = layout.focus
    left = room - 2  # two lines may have to tell what is missing
    while True:
        # Two rows of what led there for one of what came of it.
        before = start > 0 and (
            layout.focus - start <= 2 * (end - layout.focus) or end == len(blocks)
        )
        grown = (start - 1, end) if before else (start, end + 1)
        if grown[1] > len(blocks) or sum(map(len, blocks[grown[0] : grown[1]])) > left:
            break
        start, end = grown
    shown = [line for block in blocks[start:end] for line in block]
    head = [f"{indent}··· {_rows(start)} before ···"] if start else []
    rest = len(blocks) - end
    return [*head, *shown, *([f"{indent}··· {_rows(rest)} after ···"] if rest else [])]


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _fit(text: str, width: int, right: bool = False) -> str:
    """`text` in exactly that many cells of the terminal."""
    text = _clipped(text, width)
    room = " " * (width - cell_len(text))
    return room + text if right else text + room


def _clipped(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + "…"
