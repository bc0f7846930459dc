"""The diagram of TCP's states with a token for each end, moved through the run by the reader.

The shape is that of figure 5 of RFC 9293 section 3.3.2. Without script it is a picture of the whole
run: the ways taken are bold and the tokens stand where they came to rest. `SCRIPT` is one constant,
so that a page can allow it by its hash; it drives every player on the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any, Final

from sockwork.figure.conversation import Side
from sockwork.figure.layout import Layout, Row
from sockwork.figure.svg import THEME, title
from sockwork.figure.words import moment, span

_SIDES: Final[tuple[Side, Side]] = ("client", "server")
_WIDTH, _HEIGHT = 104, 40  # of a box
_BOXES: Final[dict[str, tuple[int, int]]] = {  # their centres
    "CLOSED": (400, 40),
    "LISTEN": (400, 140),
    "SYN_RECV": (140, 220),
    "SYN_SENT": (660, 220),
    "ESTABLISHED": (400, 300),
    "FIN_WAIT1": (140, 380),
    "CLOSE_WAIT": (660, 380),
    "FIN_WAIT2": (140, 500),
    "CLOSING": (400, 460),
    "LAST_ACK": (660, 500),
    "TIME_WAIT": (400, 580),
}
# What leads from one state to the next, and the points of the way between.
_EDGES: Final[tuple[tuple[str, str, str, tuple[tuple[int, int], ...], tuple[int, int]], ...]] = (
    ("CLOSED", "LISTEN", "listen", ((400, 60), (400, 120)), (400, 94)),
    ("CLOSED", "SYN_SENT", "connect: SYN", ((452, 40), (660, 40), (660, 200)), (660, 110)),
    ("LISTEN", "SYN_RECV", "gets SYN", ((348, 140), (140, 140), (140, 200)), (224, 140)),
    ("SYN_SENT", "SYN_RECV", "gets SYN", ((608, 220), (192, 220)), (400, 220)),
    ("SYN_RECV", "ESTABLISHED", "gets ACK", ((192, 232), (348, 288)), (256, 255)),
    ("SYN_SENT", "ESTABLISHED", "gets SYN,ACK", ((608, 232), (452, 288)), (544, 255)),
    ("SYN_RECV", "FIN_WAIT1", "close: FIN", ((140, 240), (140, 360)), (140, 306)),
    ("ESTABLISHED", "FIN_WAIT1", "close: FIN", ((348, 312), (192, 368)), (270, 340)),
    ("ESTABLISHED", "CLOSE_WAIT", "gets FIN", ((452, 312), (608, 368)), (530, 340)),
    ("FIN_WAIT1", "FIN_WAIT2", "gets ACK", ((140, 400), (140, 480)), (140, 444)),
    ("FIN_WAIT1", "CLOSING", "gets FIN", ((192, 388), (348, 452)), (276, 422)),
    ("FIN_WAIT1", "TIME_WAIT", "gets FIN,ACK", ((178, 400), (366, 560)), (236, 450)),
    ("CLOSE_WAIT", "LAST_ACK", "close: FIN", ((660, 400), (660, 480)), (660, 444)),
    ("FIN_WAIT2", "TIME_WAIT", "gets FIN", ((192, 512), (348, 572)), (262, 540)),
    ("CLOSING", "TIME_WAIT", "gets ACK", ((400, 480), (400, 560)), (400, 524)),
    ("LAST_ACK", "CLOSED", "gets ACK", ((712, 500), (760, 500), (760, 24), (452, 24)), (760, 300)),
    (
        "TIME_WAIT",
        "CLOSED",
        "2 MSL pass",
        ((400, 600), (400, 624), (40, 624), (40, 40), (348, 40)),
        (40, 300),
    ),
)
_BESIDE: Final[dict[Side, int]] = {"client": -34, "server": 34}  # of the box's centre

CSS: Final = THEME + (
    ".sockwork.player{color:var(--ink);max-width:800px}"
    ".player svg{max-width:100%;height:auto;background:var(--page)}"
    ".player text{font:12px ui-monospace,'DejaVu Sans Mono',monospace;fill:var(--ink);"
    "text-anchor:middle}"
    ".player .edge path{fill:none;stroke:var(--dim);stroke-width:1}"
    ".player .edge text{font-size:11px;fill:var(--dim)}.player .edge polygon{fill:var(--dim)}"
    ".player .taken path{stroke:var(--ink);stroke-width:3}.player .taken polygon{fill:var(--ink)}"
    ".player .taken text{fill:var(--ink);font-weight:bold}"
    ".player .jump path{stroke-dasharray:6 4;opacity:0}.player .jump.taken path{opacity:1}"
    ".player .state rect{fill:var(--page);stroke:var(--dim)}"
    ".player .visited rect{stroke:var(--ink);stroke-width:2}.player .edge rect{fill:var(--page)}"
    ".player .token{transition:transform .35s}"
    ".player .token circle{stroke:var(--page);stroke-width:2}"
    ".player .token text{fill:var(--page);font-weight:bold}"
    ".player .client circle{fill:var(--client)}.player .server circle{fill:var(--server)}"
    ".player .controls{display:flex;gap:.5em;align-items:center}"
    ".player .controls[hidden]{display:none}"
    ".player input{flex:1;min-width:6em}.player .now{min-height:3em}"
    "@media(prefers-reduced-motion:reduce){.player .token{transition:none}}"
)

SCRIPT: Final = """
"use strict";
for (const player of document.querySelectorAll(".sockwork.player")) {
  const data = JSON.parse(player.querySelector("script[type='application/json']").textContent);
  const slider = player.querySelector("input");
  const said = player.querySelector(".now");
  const edges = player.querySelectorAll(".edge");
  const states = player.querySelectorAll(".state");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;
  const show = (number) => {
    const frame = data.frames[number];
    slider.value = number;
    slider.setAttribute("aria-valuetext", frame.said);
    said.textContent = frame.said;
    for (const side of ["client", "server"]) {
      const token = player.querySelector(".token." + side);
      const place = data.places[side][frame[side]];
      token.setAttribute("transform", "translate(" + place[0] + "," + place[1] + ")");
      token.style.transform = "translate(" + place[0] + "px," + place[1] + "px)";
    }
    const past = data.frames.slice(0, number + 1);
    const taken = new Set(past.flatMap((each) => each.taken));
    const visited = new Set(past.flatMap((each) => [each.client, each.server]));
    for (const edge of edges) edge.classList.toggle("taken", taken.has(edge.dataset.edge));
    for (const state of states) state.classList.toggle("visited", visited.has(state.dataset.state));
    for (const figure of document.querySelectorAll("[data-figure='" + data.name + "']")) {
      for (const row of figure.querySelectorAll("[data-row]")) {
        row.classList.toggle("now", row.dataset.row === String(number));
      }
    }
  };
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  const step = (by) => {
    const last = data.frames.length - 1;
    show(Math.max(0, Math.min(last, Number(slider.value) + by)));
    if (Number(slider.value) === last) stop();
  };
  const [back, play, on] = player.querySelectorAll("button");
  back.addEventListener("click", () => { stop(); step(-1); });
  on.addEventListener("click", () => { stop(); step(1); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (Number(slider.value) === data.frames.length - 1) show(0);
    timer = setInterval(step, still.matches ? 1500 : 900, 1);
    play.textContent = "Pause";
  });
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  player.querySelector(".controls").hidden = false;
  show(0);
}
"""


def html(layout: Layout, name: str = "figure") -> str:
    """The player for the figure whose id is `name`; empty when no state is known."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
        raise ValueError(f"{name!r} cannot be an id")
    if not layout.before:
        return ""
    frames = list(_frames(layout))
    last = len(frames) - 1
    data = _json({"name": name, "frames": frames, "places": _places()})
    return (
        f'<div class="sockwork player"><style>{CSS}</style>{_diagram(layout, frames, name)}'
        '<div class="controls" hidden><button type="button">Back</button>'
        '<button type="button">Play</button><button type="button">On</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="Moment of the run">'
        f'</div><p class="now" aria-live="polite">{escape(frames[-1]["said"])}</p>'
        f"{_history(layout)}"
        f'<script type="application/json">{data}'
        "</script></div>"
    )


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _frames(layout: Layout) -> Iterator[dict[str, Any]]:
    """One for each row: the states after it, the ways taken in it, and what happened in words."""
    at: dict[str, Any] = {side: _start(layout, side) for side in _SIDES}
    if not layout.rows:
        yield {**at, "taken": [], "said": ""}
    for row in layout.rows:
        taken = []
        for side in _SIDES:
            change = row.cell(side).change
            if change:
                taken.append(f"{at[side]} {change.to}")
                at[side] = change.to
        yield {**at, "taken": taken, "said": _said(row)}


def _start(layout: Layout, side: Side) -> str:
    change = layout.before.get(side)
    return change.to if change else "CLOSED"


def _said(row: Row) -> str:
    parts = []
    if row.wire:
        parts.append(f"{row.wire.sender} sends {row.wire.label}")
        parts += [row.wire.remark] if row.wire.remark else []
    if row.landing:
        parts.append(f"{row.landing.label} of the {row.landing.sender} arrives")
    for side in _SIDES:
        parts += [f"{side}: {text.text}" for text in row.cell(side).texts]
        change = row.cell(side).change
        if change:
            how = "" if change.observed else " (inferred)"
            parts.append(f"{side} enters {change.to}{how}")
    parts += [f"expected: {row.expected}"] if row.expected is not None else []
    return f"{moment(row.time)}  " + "; ".join(parts)


def _history(layout: Layout) -> str:
    """How long each end stayed in each state."""
    items = []
    for side in _SIDES:
        entered = [(row.time, change) for row in layout.rows if (change := row.cell(side).change)]
        ends = [time for time, _ in entered[1:]] + [None]
        for (time, change), end in zip(entered, ends):
            stay = f", for {span(end - time)}" if end is not None else ", to the end"
            items.append(f"<li>{side}: {change.to} at {escape(moment(time))}{escape(stay)}</li>")
    return f"<details><summary>How long in which state</summary><ol>{''.join(items)}</ol></details>"


def _places() -> dict[str, dict[str, tuple[int, int]]]:
    return {
        side: {state: (x + _BESIDE[side], y + 20) for state, (x, y) in _BOXES.items()}
        for side in _SIDES
    }


def _diagram(layout: Layout, frames: list[dict[str, Any]], name: str) -> str:
    taken = {edge for frame in frames for edge in frame["taken"]}
    visited = {frame[side] for frame in frames for side in _SIDES}
    visited |= {_start(layout, side) for side in _SIDES}
    rest = ", ".join(f"{side} in {frames[-1][side]}" for side in _SIDES)
    parts = [
        f'<svg viewBox="0 0 800 640" width="800" height="640" role="img" '
        f'aria-labelledby="{name}-pt {name}-pd" xmlns="http://www.w3.org/2000/svg">'
        f'<title id="{name}-pt">{escape(f"States of {title(layout)}")}</title>'
        f'<desc id="{name}-pd">{escape(f"The states of TCP; at the end {rest}.")}</desc>'
    ]
    parts += [_edge(*edge, taken) for edge in _EDGES]
    known = {f"{start} {end}" for start, end, *_ in _EDGES}
    parts += [_jump(edge) for edge in sorted(taken - known)]
    parts += [_box(state, state in visited) for state in _BOXES]
    places = _places()
    for side in _SIDES:
        x, y = places[side][frames[-1][side]]
        parts.append(
            f'<g class="token {side}" transform="translate({x},{y})"><title>{side}</title>'
            f'<circle r="11"/><text y="4">{side[0].upper()}</text></g>'
        )
    return "".join(parts) + "</svg>"


def _box(state: str, visited: bool) -> str:
    x, y = _BOXES[state]
    kind = "state visited" if visited else "state"
    return (
        f'<g class="{kind}" data-state="{state}"><rect rx="4" x="{x - _WIDTH // 2}" '
        f'y="{y - _HEIGHT // 2}" width="{_WIDTH}" height="{_HEIGHT}"/>'
        f'<text x="{x}" y="{y + 2}">{state}</text></g>'
    )


def _jump(edge: str) -> str:
    """A way that is none of the usual ones, such as the end of a connection by RST."""
    (from_x, from_y), (x, y) = (_BOXES[state] for state in edge.split())
    bend = f"{(from_x + x) // 2 + 110} {(from_y + y) // 2}"
    return (
        f'<g class="edge jump taken" data-edge="{edge}">'
        f'<path d="M{from_x + 20} {from_y}Q{bend} {x + 20} {y}"/></g>'
    )


def _edge(
    start: str,
    end: str,
    label: str,
    points: tuple[tuple[int, int], ...],
    at: tuple[int, int],
    taken: set[str],
) -> str:
    kind = "edge taken" if f"{start} {end}" in taken else "edge"
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    (from_x, from_y), (x, y) = points[-2:]
    length = ((x - from_x) ** 2 + (y - from_y) ** 2) ** 0.5
    along, across = (x - from_x) / length, (y - from_y) / length
    width = len(label) * 6.8 + 6
    corners = ((0, 0), (-10, 5), (-10, -5))
    tip = " ".join(
        f"{x + a * along - b * across:.1f},{y + a * across + b * along:.1f}" for a, b in corners
    )
    return (
        f'<g class="{kind}" data-edge="{start} {end}"><path d="{path}"/>'
        f'<polygon points="{tip}"/><rect x="{at[0] - width / 2:g}" y="{at[1] - 8}" '
        f'width="{width:g}" height="16"/><text x="{at[0]}" y="{at[1] + 4}">{label}</text></g>'
    )
