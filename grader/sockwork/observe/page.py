"""The observation as one HTML page, with the looks, the scripts and the rules of the report.

Whatever a program or a packet brought is made printable here and escaped by the template; only the
drawings are markup, which the modules that draw them have escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from sockwork.figure import lay_out, player, svg
from sockwork.observe.session import Program
from sockwork.observe.view import Talk
from sockwork.report.html import figures, traces
from sockwork.report.html.page import policy
from sockwork.text import printable_bytes
from sockwork.trace import Trace

DRAWN: Final = 12  # conversations
_ROWS: Final = 150
_OUTPUT: Final = 8 << 10
_REPORT: Final = Path(figures.__file__).parent


@dataclass(frozen=True)
class Drawing:
    """One conversation."""

    title: str
    amount: str
    figure: Markup
    table: Markup
    player: Markup
    is_open: bool


@dataclass(frozen=True)
class Output:
    """The beginning of what a program wrote."""

    title: str
    text: str
    is_cut: bool


@dataclass(frozen=True)
class Page:
    """What there is to show."""

    title: str
    trace: Trace
    talks: Sequence[Talk]
    first: Talk | None
    programs: Sequence[Program]
    lines: Sequence[str]  # what became of the programs
    remarks: Sequence[str]

    def render(self) -> str:
        style = (_REPORT / "style.css").read_text() + figures.STYLE
        script = (_REPORT / "script.js").read_text() + figures.SCRIPT
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["ms"] = lambda value: f"{value / 1e6:.2f} ms"
        return environment.get_template("page.html.j2").render(
            page=self,
            drawings=self._drawings(),
            left_out=max(0, len(self.talks) - DRAWN),
            calls=traces.calls(self.trace),
            outputs=self._outputs(),
            style=Markup(style),
            script=Markup(script),
            policy=policy(script),
        )

    def _drawings(self) -> list[Drawing]:
        if not self.talks:
            drawn = _drawing(self.trace, None, "calls", True)
            return [drawn] if drawn else []
        # The one that matters first, then the others in their order.
        order = sorted(self.talks, key=lambda talk: (talk is not self.first, talk.number))[:DRAWN]
        names = {talk.number: f"conversation-{talk.number}" for talk in order}
        made = [_drawing(self.trace, t, names[t.number], t is self.first) for t in order]
        return [each for each in made if each]

    def _outputs(self) -> list[Output]:
        return [
            Output(
                f"{stream} of {program.host}, {len(content):,} bytes kept",
                "\n".join(map(printable_bytes, content[:_OUTPUT].split(b"\n"))),
                len(content) > _OUTPUT,
            )
            for program in self.programs
            for stream, content in program.output.items()
            if content
        ]


def _drawing(trace: Trace, talk: Talk | None, name: str, is_open: bool) -> Drawing | None:
    layout = lay_out(trace, talk.conversation if talk else None, max_rows=_ROWS)
    if not layout.rows:
        return None
    return Drawing(
        talk.name if talk else "system calls",
        talk.amount if talk else "",
        Markup(_bare(svg.svg(layout, name), svg.CSS)),
        Markup(svg.table(layout)),
        Markup(_bare(player.html(layout, name), player.CSS)),
        is_open,
    )


def _bare(drawn: str, style: str) -> str:
    """A drawing without its style, which stands in the page once."""
    return drawn.replace(f"<style>{style}</style>", "", 1)
