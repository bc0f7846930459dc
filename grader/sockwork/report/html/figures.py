"""The figure of a trace, the same as a table, and the player below them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from sockwork.figure import Deviation, lay_out, player, svg
from sockwork.report.html import traces
from sockwork.trace import Packet, Step, Trace

STYLE = svg.CSS + player.CSS
SCRIPT = player.SCRIPT


@dataclass(frozen=True)
class Figure:
    """Drawings of one trace, ready to be put into the page."""

    drawing: Markup = Markup("")
    player: Markup = Markup("")
    note: str = ""  # why there is none


@dataclass(frozen=True)
class Wanted:
    """What to draw: a trace, and what the check had expected instead."""

    trace: Path
    name: str  # the id of the drawing
    expected: str
    reason: str
    deviation: Deviation | None = None  # where, if a diagnosis told


def draw(wanted: Wanted, max_rows: int) -> Figure:
    """The drawings, with at most so many rows."""
    trace = traces.read(wanted.trace)
    if trace is None:
        return Figure(note="The trace cannot be read: it is damaged or of another version.")
    layout = lay_out(trace, deviation=_deviation(trace, wanted), max_rows=max_rows)
    if not layout.rows:
        return Figure()
    name = wanted.name
    drawn = _bare(svg.svg(layout, name), svg.CSS)
    scrolls = f'data-figure="{name}" tabindex="0" role="region"'
    return Figure(
        Markup(
            f'<div class="drawing" {scrolls} aria-label="figure {name}">{drawn}</div>'
            '<details class="more"><summary>The same as a table</summary>'
            f'<div class="scrolls" {scrolls} aria-label="table {name}">{svg.table(layout)}</div>'
            "</details>"
        ),
        Markup(_bare(player.html(layout, name), player.CSS)),
    )


def _bare(drawn: str, style: str) -> str:
    """A drawing without its style, which stands in the page once."""
    return drawn.replace(f"<style>{style}</style>", "", 1)


def _deviation(trace: Trace, wanted: Wanted) -> Deviation | None:
    """A reset is a packet; any other failure is what the last step waited for."""
    if wanted.deviation or not wanted.expected:
        return wanted.deviation
    resets = [each.number for each in trace.of(Packet) if "RST" in each.flags]
    if wanted.reason == "reset" and resets:
        return Deviation(wanted.expected, packet=resets[-1])
    steps = trace.of(Step)
    return Deviation(wanted.expected, time=steps[-1].time) if steps else None
