"""The report page: made from real runs, and from strings that would like to be more than text."""

from __future__ import annotations

import base64
import hashlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sockwork import paths, results
from sockwork.build import Built, build
from sockwork.cli import cli
from sockwork.grading import Settings, judge
from sockwork.labs import load_lab
from sockwork.model import Check, Failure, Lab, Launch, Outcome, Program, Step
from sockwork.report import record
from sockwork.report.html.page import MAX_PAGE, render
from sockwork.report.html.view import Budget, output, shown
from sockwork.report.record import Asked, RecordError
from sockwork.results import LabRun, in_order
from sockwork.submission import load

BROWSER = Path(__file__).parent / "browser"
WRONG = paths.ROOT / "grader" / "corpus" / "wrong"
TRACE = Path(__file__).parent / "figure" / "reset-with-unread-data.jsonl"
LAB = load_lab(paths.LABS / "02-tcp-echo-server")

# Each would do something in a page that does not escape it at the place where it ends up.
XSS = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "</pre></code><img src=x onerror=alert(3)>",
    '"><svg onload=alert(4)>',
    "' autofocus onfocus='alert(5)",
    "</style><style>*{display:none}</style>",
    "<!--<script>-->",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt;&#x3c;",
    "javascript:alert(6)",
    "<a href=javascript:alert(7)>x</a>",
    "<iframe srcdoc='<script>alert(8)</script>'></iframe>",
    "<base href=//192.0.2.9/><link rel=stylesheet href=//192.0.2.9/x>",
    "\x00\x1b[2J\x1b]0;title\x07\x9b31m\u202e\u2066\ufeff\u2028\ud800",
    "]]>--!><plaintext>",
)
EVIL = " ".join(XSS)


# --- records -----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_records(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of a test stay in the test; what is built is shared by all."""
    place = tmp_path_factory.mktemp("records")
    monkeypatch.setattr(record, "_runs", lambda: place)


def make_check(id: str = "one", **fields: Any) -> Check:
    check = Check(
        id=id,
        title="The reply ends with FIN",
        stage="endings",
        program="echo_server",
        points=3,
        level="core",
        why="The end of the stream is a FIN (RFC 9293 section 3.6).",
        hints=("How many bytes did you read? Count them.", "look", "example"),
        concept="ending-a-connection",
        covers=(),
        needs=(),
        after=(),
        hosts=("target", "peer"),
        names=None,
        resolver=None,
        function=print,
    )
    return replace(check, **fields)


def make_lab(*checks: Check) -> Lab:
    program = Program("echo_server", ("HOST", "PORT"), "server", "")
    return Lab(2, LAB.id, "tcp-echo-server", "X", "", ("endings",), (program,), LAB.folder, checks)


FAILURE = Failure("reset", "connection 1 ended with RST", "it ends with FIN", ("a", "b"))


def failed(check: Check, **fields: Any) -> Outcome:
    outcome = Outcome(check, "fail", 0.1, reason="reset", failure=FAILURE)
    return replace(outcome, **fields)


def keep(*outcomes: Outcome, asked: Asked | None = None, log: str = "") -> None:
    lab = make_lab(*(each.check for each in outcomes))
    launch = Launch(("./echo_server",), Path("/nowhere"))
    built = {"echo_server": Built("echo_server", launch, log)}
    record.keep([LabRun(lab, outcomes, built, {})], asked or Asked("mine", (), 7, "T1"))


def page_of(*outcomes: Outcome, **options: Any) -> str:
    keep(*outcomes, **options)
    return render(record.last(), Path("/out/report.html"))


def test_the_last_two_runs_stay() -> None:
    for points in (1, 2, 3):
        keep(Outcome(make_check(points=points), "pass", 0.1))
    [last] = record.last()
    before = record.before(last)
    assert before is not None
    assert (last.lab["points"], before.lab["points"]) == (3, 2)
    assert sorted(each.name for each in last.folder.parent.iterdir()) == ["000002", "000003"]
    assert record.before(before) is None


def test_runs_of_other_submissions_are_not_compared() -> None:
    keep(failed(make_check()))
    keep(Outcome(make_check(), "pass", 0.1), asked=Asked("theirs", (), 7, "T1"))
    [last] = record.last()
    assert last.lab["points"] == 3 and record.before(last) is None


def test_two_runs_at_once_both_leave_a_record() -> None:
    threads = [threading.Thread(target=keep, args=[failed(make_check())]) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    [last] = record.last()
    assert last.folder.name == "000008" and record.before(last) is not None
    assert not list(last.folder.parent.glob(".new-*"))


def test_a_run_that_is_killed_while_it_keeps_leaves_the_record_before(tmp_path: Path) -> None:
    keep(failed(make_check()))
    [before] = record.last()
    script = f"""
import os, sys
sys.path[:0] = [{str(paths.ROOT / "grader")!r}, {str(Path(__file__).parent)!r}]
import test_html_report as t
from pathlib import Path
t.record._runs = lambda: Path({str(before.folder.parents[2])!r})
t.record._number = lambda new, place: os.kill(os.getpid(), 9)
t.keep(t.failed(t.make_check()))
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -9
    assert [each.folder for each in record.last()] == [before.folder]
    [left] = before.folder.parent.glob(".new-*")
    os.utime(left, (0, 0))
    keep(failed(make_check()))
    assert not left.exists()


@pytest.mark.parametrize("name", ["run.json", "results.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "other"])
def test_a_damaged_record_is_told_in_one_line(name: str, damage: str) -> None:
    keep(failed(make_check()))
    [last] = record.last()
    file = last.folder / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        damaged = {"cut": content[:-9], "changed": content.replace(b"RST", b"FIN"), "other": b"[]"}
        file.write_bytes(damaged[damage])
    with pytest.raises(RecordError) as told:
        record.read(last.folder)
    assert "\n" not in str(told.value)


def test_a_record_of_another_version_is_told() -> None:
    keep(failed(make_check()))
    [last] = record.last()
    details = json.loads((last.folder / "run.json").read_bytes())
    (last.folder / "run.json").write_text(json.dumps({**details, "version": 0}))
    with pytest.raises(RecordError, match="another version of Sockwork; run ./sockwork check"):
        record.last()


def test_a_run_whose_record_cannot_be_kept_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(record, "_runs", lambda: tmp_path / "file")
    keep(failed(make_check()))
    assert capsys.readouterr().err == "sockwork: no record of this run is kept: Not a directory\n"


def test_what_does_not_fit_into_a_record_is_told() -> None:
    line = json.dumps({"kind": "step", "n": 1, "time": 1, "source": "observed", "step": {}})
    trace = f"{line}\n".encode() * (record.MAX_TRACE // len(line) + 1)
    flood = b"x" * 1_000_000 + b"the end"
    page = page_of(
        failed(make_check(), trace=trace, capture=bytes(record.MAX_CAPTURE + 1), stdout=flood)
    )
    [last] = record.last()
    size = sum(file.stat().st_size for file in last.folder.iterdir())
    assert size < record.MAX_TRACE + (64 << 10)
    assert (last.folder / "one.jsonl").read_bytes().endswith(b"}\n")
    assert f"one: the trace has {len(trace):,} bytes; only its beginning is kept" in page
    assert "one: the capture has 2,097,153 bytes and is not kept" in page
    assert "1,000,007 bytes" in page and "the end</pre>" in page


def test_a_source_saved_after_its_run_is_not_shown(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(WRONG / "02-iterative", folder)
    check = next(each for each in LAB.checks if each.id == "listens")
    source = next(folder.glob("*/echo_server.*"))
    for changed in (False, True):
        built = build(load(folder, LAB), {"echo_server"})
        os.utime(source) if changed else None
        failure = replace(FAILURE, source=f"{source.name}:1")
        outcome = Outcome(check, "fail", 0.1, reason="reset", failure=failure)
        asked = Asked(str(folder), (), 1, "T1", folder)
        record.keep([LabRun(LAB, (outcome,), built, {})], asked)
        page = render(record.last(), tmp_path / "report.html")
        assert ("around line 1" in page) is not changed
        assert ("was changed after it was judged" in page) is changed


# --- text --------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Every element and attribute that a page really has."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def hostile(id: str = "one", **fields: Any) -> Outcome:
    failure = Failure(EVIL, EVIL, EVIL, XSS, "echo_server.cpp:1")
    hostile_fields = {
        "reason": EVIL,
        "failure": failure,
        "steps": tuple(Step(n, text) for n, text in enumerate(XSS)),
        "stdout": EVIL.encode("utf-8", "surrogatepass"),
        "stderr": EVIL,
        "command": ("./echo_server", *XSS),
        "trace": hostile_trace(),
        "capture": b"pcap",
    }
    check = make_check(id, title=EVIL, stage=EVIL)
    return failed(check, **{**hostile_fields, **fields})


def hostile_trace() -> bytes:
    """A trace in which every word that a program could choose is one of ours."""
    lines = []
    for n, text in enumerate(XSS):
        call = {
            "run": 1, "pid": 7, "tid": 7, "name": text, "result": None, "error": text,
            "args": [{"name": text, "value": text}, {"name": "b", "value": {text: text}}],
            "ended": n, "fd": None, "socket": None, "accepted": None, "bytes": None,
            "at": {"file": text, "line": 1, "function": text}, "perturbed": text,
        }  # fmt: skip
        process = {"run": 1, "event": "start", "name": text, "argv": [text]}
        step = {"text": text, "data": {text: text}}
        for kind, inner in (("call", call), ("process", process), ("step", step)):
            made = {"n": n, "time": n, "kind": kind, "source": "observed", kind: inner}
            lines.append(json.dumps(made))
    return "\n".join(lines).encode() + b"\n"


EXPECTED_TAGS = set(
    "a body br button caption code dd details div dl dt figcaption figure h1 h2 h3 h4 head header hr html li"
    " main meta ol p pre script section span strong style summary table tbody td th thead title"
    " tr ul".split()
)
DRAWN_TAGS = set(
    "svg g text tspan path line rect circle polygon polyline defs marker pattern desc use input"
    " label output b i em".split()
)


def assert_harmless(page: str) -> None:
    """Nothing in the page but what the template, the drawings and the script brought."""
    parsed = Parsed(page)
    assert set(parsed.tags) - EXPECTED_TAGS - DRAWN_TAGS == set()
    assert parsed.tags["style"] == 1 and parsed.tags["body"] == 1 and parsed.tags["head"] == 1
    names = {name for name, _ in parsed.attributes}
    assert {name for name in names if name.startswith("on")} == set()
    assert names & {"src", "srcdoc", "autofocus", "action", "formaction"} == set()
    links = [value for name, value in parsed.attributes if name in ("href", "xlink:href")]
    assert all(link.startswith("#") or link.endswith(".md") for link in links)
    assert_one_script(page)
    for char in page:
        assert char.isprintable() or char == "\n", repr(char)


def assert_one_script(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    [script] = scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in page
    others = re.findall(r"<script([^>]+)>", page)
    assert all('type="application/json"' in each for each in others)


def test_what_a_program_wrote_is_text_and_nothing_else() -> None:
    asked = Asked(EVIL, ("--submission", EVIL), 7, "T1")
    page = page_of(hostile(), asked=asked, log=EVIL)
    assert_harmless(page)
    text = " ".join(Parsed(page).text)
    for each in XSS[:-2]:
        assert each in text
    assert "\\x00\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\u202e\\u2066\\ufeff\\u2028" in text


@dataclass(frozen=True)
class Told:
    """A diagnosis whose every word is hostile."""

    code: str | None = EVIL
    message: tuple[str, ...] = XSS
    evidence: tuple[str, ...] = XSS
    question: str = EVIL
    why: str = EVIL
    source: str | None = EVIL
    deviation: Any = None
    candidates: tuple[str, ...] = XSS
    entry: Any = None


def test_a_diagnosis_is_shown_as_text() -> None:
    told: Any = Told()
    keep(dataclasses.replace(failed(make_check()), diagnosis=told))
    page = render(record.last(), Path("/out/report.html"))
    assert_harmless(page)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    told = Told(code="E-RST-UNREAD", message=("100 bytes were not read.",))
    keep(dataclasses.replace(failed(make_check()), diagnosis=told))
    page = render(record.last(), Path("/out/report.html"))
    assert '<code class="code">E-RST-UNREAD</code>' in page and "100 bytes were not read." in page


def test_a_stranger_s_results_file_is_text_and_nothing_else(tmp_path: Path) -> None:
    check = {
        "id": "one", "title": EVIL, "stage": EVIL, "level": "core", "status": "fail",
        "reason": EVIL, "diagnosis": None, "points": 0, "max_points": 1, "message": EVIL,
        "evidence": {"trace": "one.jsonl", "pcap": EVIL.replace("\0", "")}, "seconds": 1,
    }  # fmt: skip
    lab = {"lab": LAB.id, "points": 0, "max_points": 1, "checks": [check]}
    lab["build"] = {"status": "failed", "log": EVIL}
    made = {"version": 1, "kit": EVIL, "tier": "T0", "seed": 1, "submission": EVIL, "labs": [lab]}
    (tmp_path / "one.jsonl").write_bytes(hostile_trace())
    (tmp_path / "results.json").write_text(json.dumps(made))
    found = record.read_results(tmp_path / "results.json")
    assert_harmless(render(found, tmp_path / "report.html"))


def test_every_line_of_a_stream_is_printable_and_cuts_are_counted() -> None:
    assert shown("a\tb\n\x1b[2J\n") == "a\\tb\n\\x1b[2J\n"
    kept = {"size": 10_000, "head": "é" * 4000, "left_out": 1000, "tail": "z" * 1000}
    made = output("stdout", kept, 1000)
    assert (made.head, made.tail) == ("é" * 750, "z" * 250)
    assert made.left_out == 10_000 - 1500 - 250


def test_a_page_of_failures_stays_within_its_size() -> None:
    noise = (EVIL * 200).encode("utf-8", "replace")
    many = [hostile(f"c-{n}", stdout=noise) for n in range(60)]
    page = page_of(*many)
    assert 100_000 < len(page.encode()) <= MAX_PAGE
    assert "to keep this page small" in page


def test_a_budget_counts_escaped_bytes() -> None:
    budget = Budget(10)
    assert not budget.takes("<<<") and budget.left == 10
    assert budget.takes("<<") and budget.left == 2
    assert not budget.takes("éé")
    assert budget.takes("é") and budget.left == 0


# --- the comparison ----------------------------------------------------------------------------


def test_what_changed_since_the_run_before_is_told() -> None:
    first, second, third = make_check("first"), make_check("second"), make_check("third")
    keep(failed(first), Outcome(second, "pass", 0.1), failed(third))
    page = page_of(Outcome(first, "pass", 0.1), failed(second), failed(third))
    compared = page.partition("Compared with the run before")[2].partition("<h3>")[0]
    text = " ".join(" ".join(Parsed(compared).text).split())
    assert "3 points, now 3." in text
    assert "✓ now passes first" in text and "✗ now fails second" in text
    assert "third" not in text


# --- real runs ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pages:
    """Pages as files, made from real runs and from hostile ones."""

    paths: dict[str, Path]

    def text(self, name: str) -> str:
        return self.paths[name].read_text()


def judged(folder: Path, lab: Lab, ids: tuple[str, ...] = ()) -> LabRun:
    checks = [check for check in lab.checks if not ids or check.id in ids]
    built = build(load(folder, lab), {check.program for check in checks})
    outcomes = list(judge(lab, checks, built, Settings()))
    return LabRun(lab, in_order(lab, outcomes), built, {})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A whole lab with failures, the same again, a crash, a program that does not compile, XSS."""
    folder = tmp_path_factory.mktemp("pages")
    broken = tmp_path_factory.mktemp("broken") / LAB.id
    broken.mkdir()
    (broken / "echo_server.cpp").write_text('int main() { return "</pre><script>alert(1)"; }\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "_runs", lambda: folder / "runs")
        made = {}

        def page(name: str, run: LabRun, source: Path) -> None:
            asked = Asked(str(source), ("--submission", str(source)), 1, "T1", source)
            record.keep([run], asked)
            write(name)

        def write(name: str) -> None:
            made[name] = folder / f"{name}.html"
            text = render(record.last(), made[name])
            made[name].write_bytes(text.encode("utf-8", "backslashreplace"))

        iterative = WRONG / "02-iterative"
        page("whole", judged(iterative, LAB), iterative)
        page("again", judged(iterative, LAB, ("echo-line", "last-opened-first")), iterative)
        crash = WRONG / "02-off-by-one-nul"
        page("crash", judged(crash, LAB, ("echo-line", "echo-sizes", "echo-bytes")), crash)
        page("broken", judged(broken.parent, LAB, ("listens",)), broken.parent)
        keep(hostile(), asked=Asked(EVIL, (EVIL,), 1, "T1"), log=EVIL)
        write("hostile")
        keep(failed(make_check(), trace=TRACE.read_bytes() + hostile_trace()))
        write("drawn")
        yield Pages(made)


def test_a_real_run_is_told_in_full(pages: Pages) -> None:
    page = pages.text("whole")
    assert_harmless(page)
    assert len(page.encode()) <= MAX_PAGE
    text = " ".join("".join(Parsed(page).text).split())
    for check in LAB.checks:
        assert f'id="check-2-{check.id}"' in page
        assert " ".join(check.title.split()) in text
    assert len(re.findall(r'<details class="check \w+" id="[^"]+" open>', page)) == 1
    assert '<details class="check fail" id="check-2-last-opened-first" open>' in page
    for part in ("Observed", "Expected", "Evidence", "Why", "What the check did", "Where it ran"):
        assert part in text
    assert "./sockwork check 2 last-opened-first --submission" in text
    assert "Skipped: needs last-opened-first, which failed." in text


def test_two_runs_that_fail_alike_are_compared(pages: Pages) -> None:
    page = pages.text("again")
    assert "Compared with the run before" in page and "No verdict has changed." in page


def test_a_program_that_does_not_compile_is_shown_with_its_log(pages: Pages) -> None:
    page = pages.text("broken")
    assert_harmless(page)
    assert "A program does not compile" in page
    assert "&lt;/pre&gt;&lt;script&gt;alert(1)" in page


def test_a_crash_leads_to_its_line(pages: Pages) -> None:
    page = pages.text("crash")
    assert_harmless(page)
    [line] = re.findall(
        r"(?<=out of bounds for type &#39;char \[4096\]&#39; at echo_server.cpp:)\d+", page
    )[:1]
    assert f'aria-label="echo_server.cpp, around line {line}, ' in page
    assert re.search(
        rf'class="line named"><span class="number">→ *{line}</span>  *buffer\[n\]', page
    )


def test_calls_states_and_packets_are_drawn(pages: Pages) -> None:
    page = pages.text("drawn")
    assert_harmless(page)
    tags = Parsed(page).tags
    assert tags["svg"] == 2 and tags["input"] == 1  # the figure, and the player's diagram
    assert page.count('<script type="application/json">') == 1
    assert "System calls of the program" in page and "The same as a table" in page
    assert "✗ expected: It ends with FIN" in " ".join(Parsed(page).text)


# --- the command -------------------------------------------------------------------------------


def invoke(*words: str) -> tuple[int, str]:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, ["report", *words])
    return result.exit_code, result.output


def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    keep(failed(make_check()))
    for words in ([], ["2"], [str(record.last()[0].folder)]):
        page = tmp_path / "report.html"
        shown = min(str(page), os.path.relpath(page), key=len)
        assert invoke(*words, "--output", str(page)) == (0, f"{shown}\n")
        assert "Connection 1 ended with RST" in page.read_text()
        assert_harmless(page.read_text())
        page.unlink()


def test_kept_traces_and_a_results_file_make_a_page(tmp_path: Path) -> None:
    run = LabRun(make_lab(make_check()), (failed(make_check()),), {}, {})
    made = results.as_json([run], seed=1, tier="T1", submission="mine", folder=tmp_path)
    results.write(tmp_path / "results.json", made)
    page = tmp_path / "report.html"
    assert invoke(str(tmp_path / "results.json"), "--output", str(page))[0] == 0
    assert "Connection 1 ended with RST. Expected: it ends with FIN" in page.read_text()
    kept = tmp_path / "kept" / LAB.id
    kept.mkdir(parents=True)
    (kept / "one.jsonl").write_bytes(hostile_trace())
    assert invoke(str(kept.parent), "--output", str(page))[0] == 0
    assert "kept, not judged" in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "there is no record yet; run ./sockwork check first"),
        (["2"], "there is no record of 02-tcp-echo-server yet"),
        (["99"], "no lab 99"),
        (["/dev/null"], "/dev/null"),
        ([f"{paths.ROOT}/cmake/"], "holds no results.json and no traces"),
    ],
)
def test_what_cannot_be_shown_is_told(words: list[str], said: str) -> None:
    status, told = invoke(*words)
    assert status == 2 and said in told


# --- in a browser ------------------------------------------------------------------------------


def chromium() -> str:
    """The browser; skips where a tool is missing, and says which."""
    found = {"node": shutil.which("node"), "chromium": shutil.which("chromium")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; see packages.txt, group test")
    if not (BROWSER / "node_modules" / "axe-core").is_dir():
        pytest.skip(f"run: npm ci --prefix {BROWSER.relative_to(paths.ROOT)}")
    return str(found["chromium"])


def test_a_browser_finds_nothing_to_complain_about(pages: Pages) -> None:
    """One test, so that the browser is started once and the pages are made once for it."""
    command = ["node", str(BROWSER / "visit.mjs"), chromium(), *map(str, pages.paths.values())]
    done = subprocess.run(command, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    visits = dict(zip(pages.paths, json.loads(done.stdout), strict=True))
    for name, visit in visits.items():
        assert_well_behaved(name, visit)
    first, second = (f"check-2-{check.id}" for check in LAB.checks[:2])
    keys = visits["whole"]["keys"]
    assert (keys["first"], keys["second"], keys["back"]) == (first, second, first)
    assert keys["off"] not in (first, second)
    assert visits["drawn"]["keys"]["packet"]


def assert_well_behaved(name: str, visit: dict[str, Any]) -> None:
    assert (visit["light"], visit["dark"]) == ([], []), name  # axe-core
    assert visit["said"] == [], name  # console, dialogs, requests
    assert visit["width"] == 360, name
    rules = ["connect-src", "script-src-attr", "script-src-elem"]
    assert visit["refused"] == {"injected": False, "rules": rules}, name
    plain = visit["plain"]  # without script
    assert plain["opens"] and not plain["tools"], name
    assert "Observed" in plain["text"] and "Where it ran" in plain["text"], name
    assert visit["printed"] == {"tools": False, "closed": 0}, name
    light, dark, again = visit["theme"]["colours"]
    assert light == again != dark and visit["theme"]["stored"] == 0, name
    assert visit["linked"], name
