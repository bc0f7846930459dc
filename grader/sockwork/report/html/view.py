"""What the page shows, as plain values: the template only lays them out.

Everything here may hold text of a stranger. It is made printable here and escaped by the template;
only `Figure` holds markup, which the modules that draw it have escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from sockwork import paths
from sockwork.figure import Deviation
from sockwork.report.html import figures, traces
from sockwork.report.html.figures import Figure, Wanted
from sockwork.report.html.traces import Calls, Excerpt
from sockwork.report.commands import shell_path
from sockwork.report.record import Record
from sockwork.text import printable, sentence

MAX_STEPS = 40
_FIRST_STEPS = 10
MAX_EVIDENCE = 60
OUTPUT = 4 << 10  # characters of a stream of a check that did not pass
OUTPUT_OF_PASS = 1 << 10
MAX_LINE = 600
_ROWS = (150, 40)  # of a figure, at most
_TAGS = 1000  # characters around the text of a check

WORDS = {
    "pass": "passed",
    "fail": "failed",
    "skip": "skipped",
    "error": "could not be judged",
    "kept": "kept, not judged",
}
ICONS = {"pass": "✓", "fail": "✗", "skip": "–", "error": "!", "kept": "•"}


class Budget:
    """The characters that the parts of a page may still take; the first come are served."""

    def __init__(self, characters: int) -> None:
        self.left = characters

    def takes(self, part: str, tags: int = 0) -> bool:
        """Whether there is room for `part` and the tags around it, and takes it."""
        size = len(str(escape(part)).encode(errors="replace")) + tags
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True)
class Output:
    """A stream of the program as far as it is shown."""

    name: str
    size: int
    head: str
    left_out: int
    tail: str


@dataclass(frozen=True)
class Trail:
    """What the check did; `left_out` steps stood after the first `gap`."""

    shown: tuple[tuple[int, str], ...] = ()
    gap: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Item:
    """One check."""

    anchor: str
    id: str
    title: str
    status: str
    points: float
    max_points: float
    challenge: bool
    reason: str
    message: str
    seconds: float
    before: str = ""  # its status in the run before
    program: str = ""
    observed: str = ""
    expected: str = ""
    evidence: tuple[str, ...] = ()
    evidence_left_out: int = 0
    why: str = ""
    question: str = ""
    concept: str = ""
    concept_title: str = ""
    concept_link: str = ""
    diagnosis: str = ""
    misconception: str = ""
    told: str = ""  # the sentence of the diagnosis
    candidates: tuple[str, ...] = ()
    rerun: str = ""
    by_hand: tuple[str, ...] = ()
    trail: Trail = Trail()
    capture: str = ""
    # The heavy parts, as far as there is room for them.
    figure: Figure = Figure()
    earlier: Figure = Figure()
    difference: str = ""
    calls: Calls = Calls()
    excerpts: tuple[Excerpt, ...] = ()
    outputs: tuple[Output, ...] = ()
    shortened: bool = False  # something of them did not fit

    @property
    def word(self) -> str:
        return WORDS[self.status]

    @property
    def icon(self) -> str:
        return ICONS[self.status]

    @property
    def change(self) -> str:
        """What changed since the run before, in two words."""
        if not self.before or self.before == self.status:
            return ""
        new = {"pass": "now passes", "fail": "now fails"}
        return new.get(self.status, f"{WORDS[self.before]} before")


@dataclass(frozen=True)
class Section:
    """One lab of the page."""

    id: str
    number: int
    title: str
    points: float
    max_points: float
    build_failed: bool
    build_log: Output
    stages: tuple[tuple[str, tuple[Item, ...]], ...]
    environment: tuple[tuple[str, str], ...]
    not_seen: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    before: str  # when the run before was; nothing without one
    points_before: float = 0

    @property
    def items(self) -> tuple[Item, ...]:
        return tuple(item for _, items in self.stages for item in items)

    @property
    def changes(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.change)


# --- text of strangers -------------------------------------------------------------------------


def shown(text: str) -> str:
    """Text of several lines: each one printable."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _clipped(line: str) -> str:
    """One line, cut where nobody reads on."""
    line = printable(line.expandtabs(4))
    return line if len(line) <= MAX_LINE else line[:MAX_LINE] + "…"


def output(name: str, kept: Mapping[str, Any], limit: int) -> Output:
    """A kept stream, shortened to `limit` characters: more of its beginning than of its end."""
    head, tail, left_out = str(kept["head"]), str(kept["tail"]), int(kept["left_out"])
    if len(head) + len(tail) > limit:
        rest = tail or head
        tail = rest[-limit // 4 :]
        left_out = kept["size"] - len(_bytes(head[: limit * 3 // 4])) - len(_bytes(tail))
        head = head[: limit * 3 // 4]
    return Output(name, int(kept["size"]), shown(head), left_out, shown(tail))


def _bytes(text: str) -> bytes:
    return text.encode(errors="replace")


# --- one lab -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Maker:
    """Makes the sections of one page, within one budget."""

    budget: Budget
    page: Path  # where the page will be, for links from it

    def section(self, record: Record, earlier: Record | None) -> Section:
        """One lab: light parts of all checks first, then the heavy ones where they matter most."""
        lab, details = record.lab, record.details
        items = [self._item(record, check, earlier) for check in lab["checks"]]
        order = sorted(range(len(items)), key=lambda n: items[n].status not in ("fail", "kept"))
        for n in order:
            items[n] = self._with_figures(items[n], record, lab["checks"][n], earlier)
        for n in order:
            items[n] = self._with_words(items[n], record)
        number = int(lab["lab"].partition("-")[0])
        log = _whole(str(lab["build"]["log"]))
        return Section(
            id=lab["lab"],
            number=number,
            title=printable(str(details.get("lab", {}).get("title", lab["lab"]))),
            points=lab["points"],
            max_points=lab["max_points"],
            build_failed=lab["build"]["status"] == "failed",
            build_log=output("the compiler", log, OUTPUT),
            stages=_stages(items, lab["checks"]),
            environment=tuple(_environment(record)),
            not_seen=tuple(_not_seen(items)),
            notes=tuple(_notes(record)),
            before=str(earlier.details["time"]).replace("T", " ") if earlier else "",
            points_before=earlier.lab["points"] if earlier else 0,
        )

    def _item(self, record: Record, check: Mapping[str, Any], earlier: Record | None) -> Item:
        found = record.check(check["id"])
        diagnosis = found.get("diagnosis") or {}
        number = int(record.lab["lab"].partition("-")[0])
        concept = found.get("concept", "")
        capture = record.evidence(check, "pcap")
        item = Item(
            anchor=f"check-{number}-{check['id']}",
            id=check["id"],
            title=_clipped(check["title"]),
            status=check["status"],
            points=check["points"],
            max_points=check["max_points"],
            challenge=check["level"] == "challenge",
            reason=_clipped(check["reason"]),
            message=_clipped(check["message"]),
            seconds=check["seconds"],
            before=_status_before(earlier, check["id"]),
            program=found.get("program", ""),
            observed=_clipped(sentence(found["observed"])) if found.get("observed") else "",
            expected=_clipped(sentence(found["expected"])) if found.get("expected") else "",
            evidence_left_out=max(0, found.get("evidence_lines", 0) - MAX_EVIDENCE),
            why=printable(str(diagnosis.get("why") or found.get("why", ""))),
            question=printable(str(diagnosis.get("question") or found.get("question", ""))),
            concept=concept,
            concept_title=_title_of(concept),
            concept_link=_link(self.page, paths.ROOT / "docs" / "concepts" / f"{concept}.md"),
            diagnosis=printable(diagnosis.get("code") or check["diagnosis"] or ""),
            misconception=printable(diagnosis.get("misconception", "")),
            told=printable(" ".join(diagnosis.get("message", ()))),
            candidates=tuple(map(printable, diagnosis.get("candidates", ()))),
            rerun=_clipped(found.get("rerun", "")),
            by_hand=tuple(map(_clipped, found.get("by_hand", ()))),
            capture=printable(shell_path(capture)) if capture else "",
        )
        self.budget.takes(repr(item), _TAGS)
        return item

    def _with_figures(
        self, item: Item, record: Record, check: Mapping[str, Any], earlier: Record | None
    ) -> Item:
        trace = record.evidence(check, "trace")
        if trace is None or item.status == "pass":
            return item
        diagnosis = record.check(item.id).get("diagnosis") or {}
        told = diagnosis.get("deviation")
        deviation = Deviation(*told) if told else None
        wanted = Wanted(trace, item.anchor, item.expected, item.reason, deviation)
        item = replace(item, figure=self._drawn(wanted))
        old = _trace_before(earlier, item) if earlier else None
        if old is None:
            return item
        then, now = traces.read(old), traces.read(trace)
        difference = traces.first_difference(then, now) if then and now else ""
        wanted = replace(wanted, trace=old, deviation=None, name=f"{item.anchor}-before")
        before = replace(self._drawn(wanted), player=Markup(""))
        return replace(item, earlier=before, difference=printable(difference))

    def _drawn(self, wanted: Wanted) -> Figure:
        """The figure, with fewer rows if there is no room for many."""
        for rows in _ROWS:
            figure = figures.draw(wanted, rows)
            if self.budget.takes(figure.drawing + figure.player):
                return figure
        return Figure(
            note="The figure is left out to keep this page small; rerun this check alone."
        )

    def _with_words(self, item: Item, record: Record) -> Item:
        """Evidence, source, calls, steps and outputs of a check, each if there is room."""
        found = record.check(item.id)
        check = next(each for each in record.lab["checks"] if each["id"] == item.id)
        limit = OUTPUT if item.status != "pass" else OUTPUT_OF_PASS
        outputs = [output(each, found[each], limit) for each in ("stdout", "stderr") if found]
        trace = traces.read(record.evidence(check, "trace")) if item.status != "pass" else None
        calls = _printable_calls(traces.calls(trace)) if trace else Calls()
        sources = record.details.get("sources", {})
        diagnosis = found.get("diagnosis") or {}
        named = diagnosis.get("source") or found.get("source")
        lines = (*diagnosis.get("evidence", ()), *found.get("evidence", ()))
        wanted: dict[str, Any] = {
            "evidence": tuple(map(_clipped, lines[:MAX_EVIDENCE])),
            "excerpts": tuple(
                map(_printable_excerpt, traces.excerpts(sources, named, calls.shown))
            ),
            "outputs": tuple(each for each in outputs if each.size),
            "calls": calls,
            "trail": _trail(found),
        }
        fitting = {name: part for name, part in wanted.items() if self.budget.takes(repr(part))}
        return replace(item, **fitting, shortened=len(fitting) < len(wanted))


def _whole(text: str) -> dict[str, Any]:
    return {"size": len(_bytes(text)), "head": text, "left_out": 0, "tail": ""}


def _stages(
    items: Iterable[Item], checks: Iterable[Mapping[str, Any]]
) -> tuple[tuple[str, tuple[Item, ...]], ...]:
    stages: dict[str, list[Item]] = {}
    for item, check in zip(items, checks):
        stages.setdefault(printable(check["stage"]), []).append(item)
    return tuple((name, tuple(each)) for name, each in stages.items())


def _status_before(earlier: Record | None, id: str) -> str:
    checks = earlier.lab["checks"] if earlier else ()
    return next((str(each["status"]) for each in checks if each["id"] == id), "")


def _trace_before(earlier: Record, item: Item) -> Path | None:
    """The trace of the run before, of a check that failed then and now."""
    if (item.before, item.status) != ("fail", "fail"):
        return None
    check = next(each for each in earlier.lab["checks"] if each["id"] == item.id)
    return earlier.evidence(check, "trace")


def _trail(found: Mapping[str, Any]) -> Trail:
    steps = [(int(time), _clipped(text)) for time, text in found.get("steps", ())]
    missing = int(found.get("steps_before", 0))
    if len(steps) <= MAX_STEPS:
        return Trail(tuple(steps), 0, missing)
    last = MAX_STEPS - _FIRST_STEPS
    # Steps that the record itself left out stood before its first one.
    first = [] if missing else steps[:_FIRST_STEPS]
    shown_steps = (*first, *steps[-last:])
    return Trail(shown_steps, len(first), missing + len(steps) - len(shown_steps))


def _printable_calls(calls: Calls) -> Calls:
    shown_calls = tuple(
        replace(each, text=_clipped(each.text), place=printable(each.place)) for each in calls.shown
    )
    return replace(calls, shown=shown_calls)


def _printable_excerpt(excerpt: Excerpt) -> Excerpt:
    lines = tuple((number, _clipped(text)) for number, text in excerpt.lines)
    return Excerpt(printable(excerpt.file), excerpt.line, _clipped(excerpt.because), lines)


def _title_of(concept: str) -> str:
    path = paths.ROOT / "docs" / "concepts" / f"{concept}.md"
    if not concept or not path.is_file():
        return ""
    return path.read_text().partition("\n")[0].lstrip("# ")


def _link(page: Path, target: Path) -> str:
    """A relative link, so that a page in the kit's folder works wherever the kit is."""
    return Path(os.path.relpath(target, page.parent)).as_posix()


def _environment(record: Record) -> Iterator[tuple[str, str]]:
    found, details = record.results, record.details
    kernel = details.get("environment", {})
    for name, value in (
        ("submission", details.get("submission") or found["submission"]),
        ("time", str(details.get("time", "")).replace("T", " ")),
        ("kernel", kernel.get("kernel") and f"Linux {kernel['kernel']}"),
        ("compiler", kernel.get("compiler")),
        ("tier", found["tier"]),
        ("seed", found["seed"]),
        ("kit", found["kit"] and f"Sockwork {found['kit']}"),
    ):
        if value not in (None, ""):
            yield name, printable(str(value))


def _notes(record: Record) -> Iterator[str]:
    """What the machine or a limit kept from this page."""
    if record.results["tier"] == "T0":
        yield "Packets: tier T0 has no link of its own, so none were seen."
    yield from (printable(str(note)) for note in record.details.get("cut", ()))


def _not_seen(items: Sequence[Item]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Skips and errors, those with the same reason together."""
    groups: dict[str, list[str]] = {}
    for item in items:
        if item.status in ("skip", "error"):
            groups.setdefault(f"{item.word.capitalize()}: {item.reason.rstrip('.')}.", []).append(
                item.id
            )
    yield from ((reason, tuple(ids)) for reason, ids in groups.items())
