"""The figure as SVG, and as a table for those who cannot or do not want to see it.

Nothing in it runs and nothing is fetched; all text of others is escaped. Colours are variables
that follow the reader's light or dark mode, or `data-theme` of an element around the figure.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from sockwork.figure.conversation import OTHER, Side
from sockwork.figure.layout import Change, Layout, Row, Wire
from sockwork.figure.words import Text, moment, span
from sockwork.text import printable
from sockwork.trace import Packet

_WIDTH: Final = 1000
_TIME: Final = 72  # the right edge of the times
_CALLS: Final[dict[Side, int]] = {"client": 82, "server": 794}  # left edges
_LETTERS: Final = 29  # of a call
_LISTED: Final = 100  # packets of one row in the table
_STATE: Final[dict[Side, int]] = {"client": 282, "server": 692}
_STATE_WIDTH: Final = 94
_WIRE: Final[dict[Side, int]] = {"client": 380, "server": 688}  # where arrows begin and end
_HEAD: Final = 50
_ROW: Final = 34
_LINE: Final = 15
_SEND: Final = 9  # below the upper edge of the row
_ARRIVE: Final = 25
_LETTER: Final = 6.65  # the width of one, at 11 px
_BREAK: Final = 24
_EXPECTED: Final = 46  # letters in a line
_SIDES: Final[tuple[Side, Side]] = ("client", "server")

_LIGHT: Final = (
    "--ink:#1c2128;--dim:#57606a;--page:#fff;--line:#d0d7de;--client:#0550ae;--server:#116329;"
    "--danger:#b3121f;--band-client:#cfe3fb;--band-server:#cdeed5;"
)
_DARK: Final = (
    "--ink:#e6edf3;--dim:#9aa4af;--page:#0d1117;--line:#3d444d;--client:#79b8ff;--server:#6fdd8b;"
    "--danger:#ff8f88;--band-client:#173a63;--band-server:#14432a;"
)
THEME: Final = (
    f".sockwork{{{_LIGHT}}}"
    f"@media(prefers-color-scheme:dark){{.sockwork{{{_DARK}}}}}"
    f"[data-theme=light] .sockwork{{{_LIGHT}}}[data-theme=dark] .sockwork{{{_DARK}}}"
)
CSS: Final = THEME + (
    "svg.sockwork{max-width:100%;height:auto;background:var(--page);color:var(--ink)}"
    ".sockwork text{font:11px ui-monospace,'DejaVu Sans Mono',monospace;fill:var(--ink)}"
    # Letters stand out from the lines below them.
    ".sockwork text{paint-order:stroke;stroke:var(--page);stroke-width:3px}"
    ".sockwork .state,.sockwork .name{stroke:none}"
    ".sockwork .head{font-weight:bold;font-size:12px}.sockwork .dim{fill:var(--dim)}"
    ".sockwork .bad{fill:var(--danger);font-weight:bold}.sockwork .step{fill:var(--dim)}"
    ".sockwork .expected{fill:var(--danger);font-style:italic}"
    ".sockwork .guide{stroke:var(--line);stroke-dasharray:1 4}"
    ".sockwork .box{fill:var(--page)}.sockwork .now .box{stroke:var(--ink);stroke-width:2}"
    ".sockwork .client{--of:var(--client);--band:var(--band-client)}"
    ".sockwork .server{--of:var(--server);--band:var(--band-server)}"
    ".sockwork .arrow{stroke:var(--of);stroke-width:1.6;fill:none}"
    ".sockwork .tip{fill:var(--of)}.sockwork .ack .arrow{stroke-width:1;opacity:.8}"
    ".sockwork .bulk .arrow{stroke-width:4}"
    ".sockwork .reset,.sockwork .lost,.sockwork .deviates{--of:var(--danger)}"
    ".sockwork .reset .arrow,.sockwork .deviates .arrow{stroke-width:3}"
    ".sockwork .reset .name,.sockwork .deviates .name{font-weight:bold;fill:var(--danger)}"
    ".sockwork .packet:focus{outline:none}"
    ".sockwork .packet:focus .box{stroke:var(--ink);stroke-width:2}"
    ".sockwork .band{stroke:var(--of)}.sockwork .solid{fill:var(--band)}"
    ".sockwork .hatch{stroke:var(--band);stroke-width:4}"
)


def svg(layout: Layout, name: str = "figure") -> str:
    """The figure; `name` is its id, and must differ from those of others on the page."""
    return "".join(_Drawing(layout, _id(name)).parts())


def _id(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
        raise ValueError(f"{name!r} cannot be an id")
    return name


class _Drawing:
    """Where everything lies, and the elements of it."""

    def __init__(self, layout: Layout, name: str) -> None:
        self._layout = layout
        self._name = name
        self._tops: list[int] = []
        y = _HEAD
        for row in layout.rows:
            y += _BREAK if row.gap is not None else 0
            self._tops.append(y)
            y += _height(row)
        self._bottom = y + 14

    def parts(self) -> Iterator[str]:
        layout, name = self._layout, self._name
        notes = [*layout.notices]
        height = self._bottom + 34 + 16 * len(notes)
        yield (
            f'<svg class="sockwork" id="{name}" data-figure="{name}" role="group" '
            f'aria-labelledby="{name}-t {name}-d" '
            f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}">'
        )
        yield f'<title id="{name}-t">{escape(title(layout))}</title>'
        yield f'<desc id="{name}-d">{escape(described(layout))}</desc><style>{CSS}</style><defs>'
        for side in _SIDES:
            yield (
                f'<pattern id="{name}-{side}" class="{side}" width="8" height="8" '
                'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
                '<path class="hatch" d="M2 0V8"/></pattern>'
            )
        yield "</defs>"
        yield from self._head()
        for top in self._tops:
            yield f'<path class="guide" d="M{_TIME + 6} {top + _SEND}H{_WIDTH - 8}"/>'
        for side in _SIDES:
            yield from self._bands(side)
        for number in range(len(layout.rows)):
            yield from self._row(number)
        yield from self._legend(notes, bool(layout.before))
        yield "</svg>"

    def _head(self) -> Iterator[str]:
        yield _text(_TIME, 18, "time", "head", "end")
        for side in _SIDES:
            title, place = self._layout.head(side)
            yield _text(_CALLS[side], 18, title, "head")
            yield _text(_CALLS[side], 34, place, "dim")
            if self._layout.before:
                yield _text(_STATE[side] + _STATE_WIDTH // 2, 18, "state", "head", "middle")
        middle = (_WIRE["client"] + _WIRE["server"]) // 2
        talk = self._layout.conversation
        yield _text(middle, 18, talk.transport.upper() if talk else "no packets", "head", "middle")

    # --- states --------------------------------------------------------------------------------

    def _bands(self, side: Side) -> Iterator[str]:
        """A band for each state, from the moment it was entered to the next."""
        entered: list[tuple[int, Change]] = []
        before = self._layout.before.get(side)
        if before:
            entered.append((_HEAD - 8, before))
        for row, top in zip(self._layout.rows, self._tops):
            change = row.cell(side).change
            if change:
                sends = row.wire is not None and row.wire.sender == side
                lands = row.landing is not None or (row.wire is not None and not sends)
                entered.append((top + (_ARRIVE if lands else _SEND), change))
        ends = [y for y, _ in entered[1:]] + [self._bottom]
        for (y, change), end in zip(entered, ends):
            yield self._band(side, y, end, change)

    def _band(self, side: Side, y: int, end: int, change: Change) -> str:
        x, middle = _STATE[side], _STATE[side] + _STATE_WIDTH // 2
        how = "observed" if change.observed else "inferred"
        said = f"<title>{escape(f'{side}: {change.to}, {how}')}</title>"
        label = _text(middle, y + 13, change.to, "state", "middle")
        if change.to == "CLOSED":
            line = f'<path class="band" d="M{x} {y}h{_STATE_WIDTH}"/>'
            return f'<g class="{side}">{said}{line}{_behind(middle, y + 13, change.to)}{label}</g>'
        fill = "" if change.observed else f' fill="url(#{self._name}-{side})"'
        shape = f'x="{x}" y="{y}" width="{_STATE_WIDTH}" height="{max(end - y, 1)}"'
        box = "" if change.observed else _behind(middle, y + 13, change.to)
        kind = "band solid" if change.observed else "band"
        return f'<g class="{side}">{said}<rect class="{kind}" {shape}{fill}/>{box}{label}</g>'

    # --- rows ----------------------------------------------------------------------------------

    def _row(self, number: int) -> Iterator[str]:
        row, top = self._layout.rows[number], self._tops[number]
        if row.gap is not None:
            middle = (_WIRE["client"] + _WIRE["server"]) // 2
            yield _text(middle, top - 8, f"··· {span(row.gap)} ···", "dim", "middle")
        yield f'<g data-row="{number}">'
        if number == 0 or row.time != self._layout.rows[number - 1].time:
            yield _text(_TIME, top + _SEND + 4, moment(row.time), "dim", "end")
        for side in _SIDES:
            y = top + _SEND + 4
            for text in row.cell(side).texts:
                yield from _cell(_CALLS[side], y, text)
                y += _LINE * len(_lines(text))
        if row.wire:
            yield self._packet(row.wire, number, row.expected)
        y = top + _wire_height(row) - 2
        for line in _expected(row):
            middle = (_WIRE["client"] + _WIRE["server"]) // 2
            yield _behind(middle, y, line) + _text(middle, y, line, "expected", "middle")
            y += _LINE
        yield "</g>"

    def _packet(self, wire: Wire, number: int, expected: str | None) -> str:
        x, y = _WIRE[wire.sender], self._tops[number] + _SEND
        to_x = _WIRE[OTHER[wire.sender]]
        late = wire.arrives is not None and wire.arrives != number
        to_y = y + _ARRIVE - _SEND
        if wire.arrives is not None and late:
            to_y = self._tops[wire.arrives] + _ARRIVE
        if wire.arrives is None:  # it stops on its way
            to_x, to_y = round(x + 0.6 * (to_x - x)), round(y + 0.6 * (to_y - y))
        name = wire.label + (f" (+{len(wire.acks)} ACK)" if wire.acks else "")
        if late and wire.remark:
            name += f" ({wire.remark.partition(',')[0]})"
        part = 0.5
        if late or wire.arrives is None:  # where arrows cross, each is named near its beginning
            part = (22 + len(name) * _LETTER / 2) / abs(to_x - x)
        at = (x + part * (to_x - x), y + part * (to_y - y) + 4)
        kinds = ["packet", wire.sender, wire.kind]
        kinds += ["lost"] if wire.arrives is None else []
        kinds += ["bulk"] if len(wire.packets) > 1 else []
        kinds += ["deviates"] if expected is not None else []
        said = escape(told(wire, expected))
        parts = [
            f'<g class="{" ".join(kinds)}" tabindex="0" role="img" aria-label="{said}">',
            f"<title>{said}</title>",
            f'<path class="arrow" d="M{x} {y}L{to_x - 5 * (1 if to_x > x else -1)} {to_y}"/>',
            _cross(to_x, to_y) if wire.arrives is None else _tip(x, y, to_x, to_y),
            _behind(at[0], at[1], name),
            _text(at[0], at[1], name, "name", "middle"),
        ]
        if wire.remark and not late:
            middle, low = (_WIRE["client"] + _WIRE["server"]) / 2, self._tops[number] + _ROW + 9
            parts.append(_behind(middle, low, wire.remark))
            parts.append(_text(middle, low, wire.remark, "dim", "middle"))
        return "".join(parts) + "</g>"

    def _legend(self, notes: Sequence[str], states: bool) -> Iterator[str]:
        y = self._bottom + 20
        if states:
            yield from self._two_kinds_of_state(y)
        for note in notes:
            y += 16
            yield _text(82, y, f"· {note}", "dim")

    def _two_kinds_of_state(self, y: int) -> Iterator[str]:
        box = f'y="{y - 10}" width="22" height="13"'
        yield f'<g class="client"><rect class="band solid" x="82" {box}/>'
        yield _text(110, y, "state observed in the socket table", "dim")
        yield (f'<rect class="band" x="372" {box} fill="url(#{self._name}-client)"/>')
        yield _text(400, y, "state concluded from packets and calls", "dim") + "</g>"


def _lines(text: Text) -> list[str]:
    """A call is one line; a step may take two."""
    mark = "✗ " if text.trouble and text.kind != "fact" else ""
    lines = textwrap.wrap(mark + text.text, _LETTERS) or [""]
    if text.kind == "call" or len(lines) > 2:
        most = 1 if text.kind == "call" else 2
        cut = len(lines) > most
        lines = lines[:most]
        lines[-1] = (lines[-1][: _LETTERS - 1] + "…") if cut else lines[-1]
    if text.at:
        lines.append(text.at if len(text.at) <= _LETTERS else "…" + text.at[1 - _LETTERS :])
    return lines


def _cell(x: int, y: int, text: Text) -> Iterator[str]:
    yield f"<g><title>{escape(text.title or text.text)}</title>"
    lines = _lines(text)
    for number, line in enumerate(lines):
        is_place = text.at and number == len(lines) - 1
        look = "dim" if is_place else "bad" if text.trouble else text.kind
        yield _text(x, y, line, look)
        y += _LINE
    yield "</g>"


def _expected(row: Row) -> list[str]:
    if row.expected is None:
        return []
    lines = textwrap.wrap(f"✗ expected: {row.expected}", _EXPECTED)
    return lines if len(lines) <= 3 else [*lines[:2], lines[2][: _EXPECTED - 1] + "…"]


def _wire_height(row: Row) -> int:
    """Of the wire's column, without what was expected; the next line's letters begin there."""
    if row.wire is None and row.landing is None:
        return _SEND + 6
    return _ROW + 13 + (_LINE if row.wire and row.wire.remark else 0)


def _height(row: Row) -> int:
    beside = [sum(len(_lines(text)) for text in row.cell(side).texts) for side in _SIDES]
    wire = _wire_height(row) - 10 if row.wire and row.wire.remark else 0
    if row.expected is not None:
        wire = _wire_height(row) + _LINE * len(_expected(row))
    return max(_ROW, 8 + _LINE * max(beside), wire)


# --- elements ----------------------------------------------------------------------------------


def _text(x: float, y: float, text: str, look: str, anchor: str = "start") -> str:
    where = f'x="{x:g}" y="{y:g}"' + (f' text-anchor="{anchor}"' if anchor != "start" else "")
    return f'<text class="{look}" {where}>{escape(text)}</text>'


def _behind(x: float, y: float, text: str) -> str:
    """A box in the colour of the page, so that letters stand out from what is below."""
    width = len(text) * _LETTER + 6
    return (
        f'<rect class="box" rx="2" x="{x - width / 2:g}" y="{y - 11:g}" '
        f'width="{width:g}" height="15"/>'
    )


def _tip(x: float, y: float, to_x: float, to_y: float) -> str:
    length = ((to_x - x) ** 2 + (to_y - y) ** 2) ** 0.5
    along, across = (to_x - x) / length, (to_y - y) / length
    corners = [(0.0, 0.0), (-9.0, 4.5), (-9.0, -4.5)]
    points = (
        f"{to_x + a * along - b * across:.1f},{to_y + a * across + b * along:.1f}"
        for a, b in corners
    )
    return f'<polygon class="tip" points="{" ".join(points)}"/>'


def _cross(x: float, y: float) -> str:
    return f'<path class="arrow" d="M{x - 5} {y - 5}l10 10m0 -10l-10 10"/>'


# --- in words ----------------------------------------------------------------------------------


def title(layout: Layout) -> str:
    (client, at), (server, on) = layout.head("client"), layout.head("server")
    if layout.conversation is None:
        return "Calls of the program"
    return f"{layout.conversation.transport.upper()}, {client} {at} and {server} {on}"


def described(layout: Layout) -> str:
    """What is in the figure, in two sentences."""
    packets = sum(len(row.wire.packets) + len(row.wire.acks) for row in layout.rows if row.wire)
    text = f"{len(layout.rows)} rows in the order of time, {packets} packets."
    unlike = [row.expected for row in layout.rows if row.expected is not None]
    return text + (f" Expected, and not so: {unlike[0]}." if unlike else "")


def told(wire: Wire, expected: str | None = None) -> str:
    """One row of the wire in words: the packets, and what befell them."""
    first, last = wire.packets[0], wire.packets[-1]
    parts = [f"{wire.sender} sends {wire.label}"]
    if len(wire.packets) > 1:
        parts.append(f"packets {first.number} to {last.number} of the capture")
    else:
        parts.append(first.summary)
    if wire.acks:
        parts.append(f"{len(wire.acks)} acknowledgements folded")
    parts += [wire.remark] if wire.remark else []
    parts += ["it never arrives"] if wire.arrives is None else []
    parts += [f"expected: {expected}"] if expected is not None else []
    return printable("; ".join(parts))


def table(layout: Layout, name: str = "figure") -> str:
    """The same figure as a table; `name` is that of the figure."""
    heads = ["time", "client", "client state", "packet", "server state", "server"]
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    rows = "".join(_table_row(number, row) for number, row in enumerate(layout.rows))
    notices = "".join(f"<p>{escape(notice)}</p>" for notice in layout.notices)
    return (
        f'<table class="sockwork-table" data-figure="{_id(name)}">'
        f"<caption>{escape(title(layout))}</caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>{notices}"
    )


def _table_row(number: int, row: Row) -> str:
    cells = [
        _table_texts(row.client.texts),
        _table_change(row.client.change),
        _table_wire(row),
        _table_change(row.server.change),
        _table_texts(row.server.texts),
    ]
    inner = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr data-row="{number}"><th scope="row">{escape(moment(row.time))}</th>{inner}</tr>'


def _table_texts(texts: Sequence[Text]) -> str:
    return "<br>".join(escape(text.title or text.text) for text in texts)


def _table_change(change: Change | None) -> str:
    if change is None:
        return ""
    return escape(f"{change.to} ({'observed' if change.observed else 'inferred'})")


def _table_wire(row: Row) -> str:
    parts = []
    if row.landing:
        parts.append(escape(f"{row.landing.label} of the {row.landing.sender} arrives"))
    if row.wire:
        parts.append(escape(told(row.wire)))
        packets = (*row.wire.packets, *row.wire.acks)
        if len(packets) > 1:
            inner = "".join(f"<li>{escape(_in_list(packet))}</li>" for packet in packets[:_LISTED])
            if len(packets) > _LISTED:
                inner += f"<li>and {len(packets) - _LISTED:,} more</li>"
            parts.append(
                f"<details><summary>{len(packets)} packets</summary><ul>{inner}</ul></details>"
            )
    if row.expected is not None:
        parts.append(f"<strong>✗ expected: {escape(row.expected)}</strong>")
    return "<br>".join(parts)


def _in_list(packet: Packet) -> str:
    return f"#{packet.number} {printable(packet.summary)}"
