"""Renders records of runs as one HTML file.

The page asks nobody for anything: its Content-Security-Policy (CSP level 3) allows one script, by
its hash, and the styles that stand in it. Text is escaped by the template engine; see `view`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from sockwork.report import record
from sockwork.report.html import figures
from sockwork.report.html.view import ICONS, WORDS, Budget, Item, Maker, Section
from sockwork.report.record import Record

MAX_PAGE = 400_000  # bytes
_MARKUP = 80_000  # of them for what surrounds the text: tags, styles, the script

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Banner:
    """The verdict on everything in the page."""

    status: str
    text: str
    points: float
    max_points: float
    first: Item | None  # where to begin to read

    @property
    def icon(self) -> str:
        return ICONS[self.status]

    @classmethod
    def of(cls, sections: Sequence[Section]) -> Banner:
        """What is to be said first about these labs."""
        items = [item for section in sections for item in section.items]
        counts = {status: sum(item.status == status for item in items) for status in WORDS}
        status = next((each for each in ("fail", "error", "kept") if counts[each]), "pass")
        first = next((item for item in items if item.status == status != "pass"), None)
        if status == "pass" and not counts["pass"]:
            status = "skip"
        points = (sum(each.points for each in sections), sum(each.max_points for each in sections))
        return cls(status, _sentence(counts, len(items), status), *points, first)


def render(records: Sequence[Record], page: Path) -> str:
    """The file for these labs, to be put at `page`. Raises RecordError."""
    style = _text("style.css") + figures.STYLE
    script = _text("script.js") + figures.SCRIPT
    room = MAX_PAGE - _MARKUP - len(figures.SCRIPT) - len(figures.STYLE)
    maker = Maker(Budget(room), page)
    sections = [maker.section(each, record.before(each)) for each in records]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            banner=Banner.of(sections),
            sections=sections,
            style=Markup(style),
            script=Markup(script),
            policy=policy(script),
            icons=ICONS,
            words=WORDS,
        )
    )


def _sentence(counts: Mapping[str, int], total: int, status: str) -> str:
    if status == "pass":
        skipped = f", {counts['skip']} skipped" if counts["skip"] else ""
        return f"{'Every check' if total > 1 else 'The check'} that was performed passed{skipped}"
    if status == "skip":
        return "Nothing could be judged"
    number = counts[status]
    noun = "check" if number == 1 else "checks"
    return f"{number} of {total} {noun if total == number else 'checks'} {WORDS[status]}"


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = lambda value: f"{value:g}"
    made.filters["ms"] = lambda value: f"{value / 1e6:+.2f} ms"
    return made


def _text(name: str) -> str:
    return (_FOLDER / name).read_text()


def policy(script: str) -> str:
    """The Content-Security-Policy (CSP level 3) of a page with this one script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
