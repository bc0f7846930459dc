"""The record of a run: what a report is made from when the run is over.

    CACHE/runs/SUBMISSION/LAB/000007/results.json    the results of this lab, in format 1
                                    /run.json        what a page needs beyond them
                                    /CHECK.jsonl     trace and capture of a check that did not pass
                                    /CHECK.pcap

A record grows under another name and gets its number by one rename(2), so that a reader finds all
of it or nothing. The last two of each submission and lab stay: the run, and the one to compare it
with. Every part has a limit; what a limit cut off is told in `cut`.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sockwork import paths, results
from sockwork.build import Built
from sockwork.model import Failure, Lab, Outcome
from sockwork.report.commands import Rerun, by_hand
from sockwork.report.terminal import one_question
from sockwork.results import Evidence, LabRun
from sockwork.submission import SubmissionError, load
from sockwork.text import printable

if TYPE_CHECKING:
    from sockwork.diagnosis import Diagnosis

VERSION = 1
MAX_OUTPUT = 16 << 10  # of each stream of a check
MAX_STEPS = 200
MAX_EVIDENCE = 200
MAX_TRACE = 2 << 20
MAX_CAPTURE = 2 << 20
MAX_FILES = 8 << 20  # traces and captures of one record
MAX_SOURCE = 128 << 10  # of each file
MAX_SOURCES = 512 << 10
KEPT_RUNS = 2
KEPT_LABS = 40  # counted over all submissions
_ABANDONED_SECONDS = 3600.0
_ATTEMPTS = 100  # at a number that another run takes first


class RecordError(Exception):
    """A record cannot be read; the text is one line for the user."""


@dataclass(frozen=True)
class Asked:
    """How a run was asked for: `again` are the options that ask for the same programs."""

    submission: str  # the folder, or the command of --exec
    again: tuple[str, ...]
    seed: int
    tier: str
    folder: Path | None = None  # None for --exec: there are no sources

    @property
    def key(self) -> str:
        """The name of the folder for its records."""
        return hashlib.sha256(self.submission.encode(errors="backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """One lab of one run, as it was kept; or as much of it as some other file tells."""

    folder: Path
    results: Mapping[str, Any]  # the whole object of results.json
    lab: Mapping[str, Any]  # the lab's part of it
    details: Mapping[str, Any] = field(default_factory=dict)  # run.json; empty for other files

    def check(self, id: str) -> Mapping[str, Any]:
        """What run.json tells about a check."""
        found: Mapping[str, Any] = self.details.get("checks", {}).get(id, {})
        return found

    def evidence(self, check: Mapping[str, Any], kind: str) -> Path | None:
        """The file of the trace or of the pcap, if it is there."""
        name = check["evidence"][kind]
        path = self.folder / name if name else None
        return path if path and path.is_file() else None


# --- writing -----------------------------------------------------------------------------------


def keep(runs: Sequence[LabRun], asked: Asked) -> None:
    """Keeps a record of each lab. A run whose record cannot be kept is still a run."""
    call = f"{time.time_ns():x}-{secrets.token_hex(4)}"
    try:
        for run in runs:
            _keep(run, asked, call)
        _forget_old()
    except OSError as error:
        print(f"sockwork: no record of this run is kept: {error.strerror}", file=sys.stderr)


def _keep(run: LabRun, asked: Asked, call: str) -> None:
    place = _runs() / asked.key / run.lab.id
    place.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
    try:
        _fill(new, run, asked, call)
        _number(new, place)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    for old in _numbered(place)[:-KEPT_RUNS]:
        shutil.rmtree(old, ignore_errors=True)


def _number(new: Path, place: Path) -> None:
    """Gives the record the next number; another run may be taking the same one."""
    for _ in range(_ATTEMPTS):
        number = max((int(path.name) for path in _numbered(place)), default=0) + 1
        try:
            new.rename(place / f"{number:06}")
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise FileExistsError(errno.EEXIST, "other runs took every number")


def _fill(new: Path, run: LabRun, asked: Asked, call: str) -> None:
    cut: list[str] = []
    evidence = _files(new, run.outcomes, cut)
    kept = LabRun(run.lab, run.outcomes, run.built, evidence)
    made = results.as_json(
        [kept], seed=asked.seed, tier=asked.tier, submission=_name(asked), folder=new
    )
    details = {
        "version": VERSION,
        "call": call,
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "submission": asked.submission,
        "lab": {"number": run.lab.number, "title": run.lab.title, "stages": run.lab.stages},
        "environment": {"kernel": platform.release(), "compiler": _compilers(run)},
        "checks": {
            each.check.id: {
                **_details(each, run, asked),
                "diagnosis": _diagnosis(each.diagnosis),
            }
            for each in run.outcomes
        },
        "sources": _sources(run, asked, cut),
        "cut": cut,
    }
    content = results.text(made).encode("utf-8", "backslashreplace")
    (new / "results.json").write_bytes(content)
    (new / "run.json").write_text(json.dumps({**details, "digest": _digest(content, details)}))


def _digest(content: bytes, details: Mapping[str, Any]) -> str:
    """Of results.json and the details, so that a reader can rely on every field of both."""
    rest = {key: value for key, value in details.items() if key != "digest"}
    return hashlib.sha256(content + json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _name(asked: Asked) -> str:
    return asked.submission if asked.folder is None else asked.folder.resolve().name


def _files(new: Path, outcomes: Iterable[Outcome], cut: list[str]) -> dict[str, Evidence]:
    """Writes traces and captures of checks that did not pass, within the limits."""
    room = MAX_FILES
    kept = {}
    for outcome in outcomes:
        id = outcome.check.id
        if outcome.status == "pass":
            continue
        trace, capture = outcome.trace, outcome.capture
        if trace and len(trace) > min(MAX_TRACE, room):
            cut.append(f"{id}: the trace has {len(trace):,} bytes; only its beginning is kept")
            trace = _whole_lines(trace, min(MAX_TRACE, room))
        room -= len(trace or b"")
        if capture and len(capture) > min(MAX_CAPTURE, room):
            cut.append(f"{id}: the capture has {len(capture):,} bytes and is not kept")
            capture = None
        room -= len(capture or b"")
        kept[id] = Evidence(
            _written(new / f"{id}.jsonl", trace), _written(new / f"{id}.pcap", capture)
        )
    return kept


def _whole_lines(content: bytes, limit: int) -> bytes:
    return content[: content.rfind(b"\n", 0, limit) + 1]


def _written(path: Path, content: bytes | None) -> Path | None:
    if not content:
        return None
    path.write_bytes(content)
    return path


def _details(outcome: Outcome, run: LabRun, asked: Asked) -> dict[str, Any]:
    check, failure = outcome.check, outcome.failure or Failure("", "", "")
    built = run.built.get(check.program)
    steps = outcome.steps[-MAX_STEPS:]
    return {
        "program": check.program,
        "why": check.why,
        "question": one_question(check.hints),
        "concept": check.concept,
        "observed": failure.observed,
        "expected": failure.expected,
        "evidence": failure.evidence[:MAX_EVIDENCE],
        "evidence_lines": len(failure.evidence),
        "source": failure.source,
        "steps": [[step.time, step.text] for step in steps],
        "steps_before": len(outcome.steps) - len(steps),
        "stdout": _output(outcome.stdout),
        "stderr": _output(outcome.stderr.encode(errors="backslashreplace")),
        "command": outcome.command,
        "rerun": Rerun(asked.again, asked.seed).command(run.lab, check.id),
        "by_hand": by_hand(run.lab, outcome, built),
    }


def _diagnosis(found: Diagnosis | None) -> dict[str, Any] | None:
    if found is None:
        return None
    at = found.deviation
    return {
        "code": found.code or "",
        "candidates": found.candidates,
        "misconception": found.entry.misconception if found.entry else "",
        "message": found.message,
        "evidence": found.evidence,
        "why": found.why,
        "question": found.question,
        "source": found.source,
        "deviation": [at.expected, at.packet, at.time] if at else None,
    }


def _output(content: bytes) -> dict[str, Any]:
    """A stream's beginning and end; `left_out` bytes stood between them."""
    head, tail = content, b""
    if len(content) > MAX_OUTPUT:
        head, tail = content[: MAX_OUTPUT * 3 // 4], content[-MAX_OUTPUT // 4 :]
    return {
        "size": len(content),
        "head": head.decode(errors="backslashreplace"),
        "left_out": len(content) - len(head) - len(tail),
        "tail": tail.decode(errors="backslashreplace"),
    }


def _sources(run: LabRun, asked: Asked, cut: list[str]) -> dict[str, str]:
    """The sources that were judged, by name; a file that was saved since then is left out."""
    if asked.folder is None:
        return {}
    try:
        submission = load(asked.folder, run.lab)
    except SubmissionError as error:
        cut.append(f"the sources could not be read again: {error}")
        return {}
    found: dict[str, str] = {}
    for built in run.built.values():
        if built.launch is None or built.program not in submission.programs:
            continue
        for name, content in submission.files_of(built.program).items():
            why_not = _unfit(asked.folder, run.lab, name, content, built)
            if why_not:
                cut.append(f"{name} {why_not}; its lines are not shown")
            elif sum(map(len, found.values())) + len(content) <= MAX_SOURCES:
                found[name] = content.decode(errors="backslashreplace")
    return found


def _unfit(folder: Path, lab: Lab, name: str, content: bytes, built: Built) -> str | None:
    """Why the lines of a source cannot be shown beside the numbers of this run, if so."""
    from sockwork.submission import lab_folder

    if len(content) > MAX_SOURCE:
        return f"has {len(content):,} bytes"
    assert built.launch
    place = lab_folder(folder, lab)
    # The builder touches the folder of a program when it serves a run with it.
    served = built.launch.directory.stat().st_mtime
    if place is None or (place / name).stat().st_mtime >= served:
        return "was changed after it was judged"
    return None


def _compilers(run: LabRun) -> str:
    compiled = any(
        each.launch is None or each.launch.argv[0].startswith("./") for each in run.built.values()
    )
    return _compiler() if compiled else ""


@functools.cache
def _compiler() -> str:
    with contextlib.suppress(OSError):
        done = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=False)
        return done.stdout.partition("\n")[0]
    return ""


# --- by hand -----------------------------------------------------------------------------------


# --- reading -----------------------------------------------------------------------------------


def last(lab: str | None = None) -> list[Record]:
    """The last run, lab by lab; or the last run of one lab. Raises RecordError."""
    found = [path for path in _runs().glob(f"*/{lab or '*'}/*/run.json") if _is_number(path)]
    if not found:
        what = f"of {lab} " if lab else ""
        raise RecordError(f"there is no record {what}yet; run ./sockwork check first")
    place = max(found, key=lambda path: path.stat().st_mtime_ns).parents[1]
    newest = read(_numbered(place)[-1])
    if lab:
        return [newest]
    others = [other for other in sorted(place.parent.iterdir()) if other != place]
    beside = [read(folder) for other in others for folder in _numbered(other)[-1:]]
    run = [newest, *(each for each in beside if each.details["call"] == newest.details["call"])]
    return sorted(run, key=lambda record: str(record.lab["lab"]))


def before(record: Record) -> Record | None:
    """The run before this one, if its record is there and can be read."""
    if not _is_number(record.folder / "run.json"):
        return None
    earlier = [path for path in _numbered(record.folder.parent) if path.name < record.folder.name]
    with contextlib.suppress(RecordError):
        return read(earlier[-1]) if earlier else None
    return None


def read(folder: Path) -> Record:
    """The record in one folder. Raises RecordError."""
    details = _json(folder / "run.json")
    if details.get("version") != VERSION:
        raise RecordError(
            f"{_shown(folder)} was kept by another version of Sockwork; run ./sockwork check again"
        )
    found = _json(folder / "results.json")
    if details.get("digest") != _digest((folder / "results.json").read_bytes(), details):
        raise RecordError(f"{_shown(folder)} is damaged; run ./sockwork check again")
    [lab] = found["labs"]
    return Record(folder, found, lab, details)


def read_results(path: Path) -> list[Record]:
    """The labs of a results.json. Raises RecordError."""
    found = _json(path)
    return [Record(path.parent, found, lab) for lab in _labs(found, path)]


def read_kept(folder: Path) -> list[Record]:
    """What `check --keep` wrote: traces and captures, without any verdict. Raises RecordError."""
    if (folder / "run.json").is_file():
        return [read(folder)]
    if (folder / "results.json").is_file():
        return read_results(folder / "results.json")
    places = sorted({path.parent for path in folder.glob("*/*.jsonl")})
    if not places:
        raise RecordError(f"{_shown(folder)} holds no results.json and no traces of --keep")
    return [_of_kept(folder, place) for place in places]


def _of_kept(folder: Path, place: Path) -> Record:
    checks = [_kept_check(folder, trace) for trace in sorted(place.glob("*.jsonl"))]
    lab = {"lab": place.name, "points": 0, "max_points": 0, "checks": checks}
    lab["build"] = {"status": "ok", "log": ""}
    found = {"version": 1, "kit": "", "tier": "", "seed": None, "submission": "", "labs": [lab]}
    return Record(folder, found, lab)


def _kept_check(folder: Path, trace: Path) -> dict[str, Any]:
    names = {"trace": trace, "pcap": trace.with_suffix(".pcap")}
    evidence = {
        kind: str(path.relative_to(folder)) if path.is_file() else None
        for kind, path in names.items()
    }
    texts = {key: "" for key in ("title", "stage", "reason", "message")}
    numbers = {key: 0 for key in ("points", "max_points", "seconds")}
    plain = {"id": trace.stem, "level": "core", "status": "kept", "diagnosis": None}
    return {**texts, **numbers, **plain, "evidence": evidence}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{_shown(path)}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{_shown(path)} is damaged: it is no JSON") from error
    if not isinstance(found, dict):
        raise RecordError(f"{_shown(path)} is damaged: it holds no object")
    return found


def _labs(found: Mapping[str, Any], path: Path) -> Sequence[Mapping[str, Any]]:
    """The labs of a results object, after the schema has approved all that a page relies on."""
    import jsonschema

    schema = json.loads(results.SCHEMA.read_bytes())
    problem = next(jsonschema.Draft202012Validator(schema).iter_errors(found), None)
    if problem is not None:
        where = "/".join(str(each) for each in problem.absolute_path) or "the file"
        raise RecordError(f"{_shown(path)} is no results.json of format {results.VERSION}: {where}")
    labs: Sequence[Mapping[str, Any]] = found["labs"]
    return labs


def _shown(path: Path) -> str:
    return printable(min(str(path), os.path.relpath(path), key=len))


# --- places ------------------------------------------------------------------------------------


def _runs() -> Path:
    return paths.cache() / "runs"


def _is_number(path: Path) -> bool:
    return path.parent.name.isdecimal() and path.is_relative_to(_runs())


def _numbered(place: Path) -> list[Path]:
    """The records in one place, the oldest first."""
    if not place.is_dir():
        return []
    return sorted(path for path in place.iterdir() if re.fullmatch(r"\d{6,}", path.name))


def _forget_old() -> None:
    """Bounds what all submissions together leave, and clears what a kill left."""
    places = sorted(_runs().glob("*/*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for place in places[KEPT_LABS:]:
        shutil.rmtree(place, ignore_errors=True)
    for left in _abandoned():
        shutil.rmtree(left, ignore_errors=True)


def _abandoned() -> Iterator[Path]:
    for path in _runs().glob("*/*/.new-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                yield path
