"""The terminal report: its order, its size, and that no program can write to the terminal with it."""

from __future__ import annotations

import io
import locale
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sockwork.build import Built
from sockwork.model import Check, Failure, Lab, Launch, Outcome, Program, Step
from sockwork.report.live import Live
from sockwork.report.style import Style
from sockwork.report.commands import Rerun
from sockwork.report.terminal import MAX_LINES, Terminal, one_question
from sockwork.results import Evidence

PLAIN = Style(colour=False, unicode=True, width=80)
WHY = """The peer reads the end of the stream as recv() = 0. RFC 9293 section 3.6 calls
this half of the connection closed; the other half goes on until its own FIN is sent. What was
received and not read makes Linux send RST instead."""


def make_check(id: str, stage: str = "echo", **fields: object) -> Check:
    check = Check(
        id=id,
        title="The reply ends with FIN",
        stage=stage,
        program="echo_server",
        points=3,
        level="core",
        why=WHY,
        hints=("How many bytes did you read? Count them.", "look there", "example"),
        concept="endings",
        covers=(),
        needs=(),
        after=(),
        hosts=("target", "peer"),
        names=None,
        resolver=None,
        function=print,
    )
    return replace(check, **fields)  # type: ignore[arg-type]


CHECKS = (make_check("first"), make_check("second"), make_check("third", stage="endings"))
LAB = Lab(
    number=2,
    id="02-tcp-echo-server",
    name="tcp-echo-server",
    title="TCP echo server",
    summary="",
    stages=("echo", "endings"),
    programs=(Program("echo_server", ("HOST", "PORT"), "server", ""),),
    folder=Path("labs/02-tcp-echo-server"),
    checks=CHECKS,
)
BUILT = Built("echo_server", Launch(("./echo_server",), Path.home() / "cache/0123"), "")
FAILURE = Failure(
    "reset",
    "connection 1 ended with RST",
    "the connection to end with FIN",
    evidence=("expected  FIN", "got       RST"),
    source="echo_server.cpp:71",
)


def failed(check: Check = CHECKS[0], **fields: object) -> Outcome:
    return Outcome(
        check,
        "fail",
        0.1,
        reason="reset",
        failure=replace(FAILURE, **fields),  # type: ignore[arg-type]
        steps=tuple(Step(n * 1_000_000, f"step {n}") for n in range(20)),
        command=("echo_server", "192.0.2.1", "7000"),
    )


def terminal(style: Style = PLAIN) -> Terminal:
    return Terminal(style, LAB, Rerun(("--submission", "my work"), 7))


def block(outcome: Outcome, style: Style = PLAIN) -> list[str]:
    lines = terminal(style).failure(outcome, BUILT, Evidence())
    return lines[1:-1]  # without the empty lines around it


def test_the_block_of_a_failed_check_has_a_fixed_order() -> None:
    assert block(failed()) == [
        "✗ 1/3 first                                                          reset   0/3",
        "  The reply ends with FIN",
        "  Connection 1 ended with RST.",
        "  Expected: the connection to end with FIN",
        "",
        *(f"        +{n}.00 ms  step {n}" for n in range(14, 20)),
        "    expected  FIN",
        "    got       RST",
        "",
        "  Why     The peer reads the end of the stream as recv() = 0. RFC 9293 section",
        "          3.6 calls this half of the connection closed; the other half goes on",
        "          until its own FIN is sent. What was received and not read makes Linux",
        "          send RST instead.",
        "  Next    How many bytes did you read?",
        "  Read    docs/concepts/endings.md",
        "  look at echo_server.cpp:71",
        "  rerun   ./sockwork check 2 first --submission 'my work' --seed 7",
        "  by hand ~/cache/0123/echo_server 127.0.0.1 7000",
        "    then: nc 127.0.0.1 7000",
    ]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_block_fits_on_a_screen(width: int) -> None:
    long = " ".join(["observed"] * 18)
    lines = block(
        failed(observed=long, expected=long, evidence=tuple("e" * 200 for _ in range(50))),
        replace(PLAIN, width=width),
    )
    assert len(lines) <= MAX_LINES
    commands = ("  rerun", "  by hand")
    assert all(len(line) <= width for line in lines if not line.startswith(commands))
    assert any("eee" in line for line in lines)


def test_without_colour_and_unicode_the_text_is_plain_ascii() -> None:
    stream = io.StringIO()
    style = Style.of(stream)
    style = replace(style, unicode=False)
    style.write(stream, block(failed(evidence=("─▶ ✓ µs “quoted” …", "Ω"))))
    text = stream.getvalue()
    assert text.isascii() and "\x1b" not in text
    assert '-> + us "quoted" ...' in text and "\\u03a9" in text


def test_what_a_program_wrote_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\x1b]0;title\x07 \r\x9b31m \u202e \x00 \udcff"
    failure = failed(observed=evil, expected=evil, evidence=(evil,), source=evil)
    failure = replace(failure, steps=(Step(0, evil),), command=(evil, evil, evil))
    for style in (PLAIN, replace(PLAIN, unicode=False)):
        stream = io.StringIO()
        style.write(stream, block(failure, style))
        assert all(line.isprintable() for line in stream.getvalue().splitlines())


def test_names_of_the_check_itself_are_not_offered_by_hand() -> None:
    named = failed(make_check("first", needs=("names",)))
    assert not any("by hand" in line for line in block(named))


@pytest.mark.parametrize(
    ("hint", "question"),
    [
        ("What is read? Look at the loop.", "What is read?"),
        ("Which address is `a?b`? And then? More.", "Which address is `a?b`?"),
        ("Look at the loop.", "Look at the loop."),
    ],
)
def test_next_is_one_question(hint: str, question: str) -> None:
    assert one_question((hint, "second")) == question


def test_a_program_that_does_not_compile_is_told_once_with_its_line() -> None:
    error = (
        "echo_server.cpp:2:10: error: ‘x’ was not declared\n    2 |   return x;\n      |     ^\n"
    )
    live = Live(terminal(), CHECKS, "all")
    lines = list(live.begin({"echo_server": Built("echo_server", None, error)}, 0.1, "T1"))
    for check in CHECKS:
        outcome = replace(failed(check), reason="does-not-compile")
        lines += live.add(outcome, Evidence())
    text = "\n".join([*lines, *live.end(1.0)])
    assert text.count("error: ‘x’ was not declared") == 1
    assert "✗ echo_server does not compile" in text and "3 checks   0/9" in text
    assert "  0/9 points · 9 lost · 1.0 s" in text and "not shown" not in text


def outcomes_of_each() -> list[Outcome]:
    return [
        Outcome(CHECKS[2], "skip", 0.0, reason="needs first, which failed"),
        failed(CHECKS[1]),
        failed(CHECKS[0]),
    ]


def shown(detail: str) -> list[str]:
    live = Live(terminal(), CHECKS, detail)  # type: ignore[arg-type]
    lines = list(live.begin({"echo_server": BUILT}, 1.42, "T1"))
    for outcome in outcomes_of_each():
        lines += live.add(outcome, Evidence())
    return [*lines, *live.end(4.2)]


def test_stages_come_in_handout_order_and_only_the_first_failure_in_full() -> None:
    lines = shown("first")
    assert lines[:2] == [
        "lab 02 TCP echo server · built in 1.4 s · seed 7 · tier T1",
        "  echo     ✗ first ✗ second",
    ]
    assert sum(line.startswith("✗") for line in lines) == 1
    assert lines[-5:] == [
        "  endings  · third",
        "  · 1 skipped: needs first, which failed (third)",
        "",
        "  · 1 more failed check is not shown: fix the one above first, or use --all",
        "  0/9 points · 6 lost · 3 could not be judged · 4.2 s",
    ]


def test_all_failures_or_brief_ones_can_be_shown() -> None:
    for detail in ("all", "brief"):
        lines = shown(detail)
        assert sum(line.startswith("✗") for line in lines) == 2
        assert not any("not shown" in line for line in lines)
    assert len(shown("brief")) < len(shown("all")) / 2


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # no-color.org: an empty value does not count
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(environment: dict[str, str], colour: bool) -> None:
    style = Style.of(FakeTerminal(), environment)
    assert style.colour == colour
    assert not Style.of(io.StringIO(), environment).colour
    painted = terminal(style).header(1.0, "T1")[0]
    assert bool(re.search("\x1b", painted)) == colour


@pytest.mark.parametrize(("encoding", "unicode"), [("UTF-8", True), ("ANSI_X3.4-1968", False)])
def test_letters_beyond_ascii_are_for_locales_that_have_them(
    encoding: str, unicode: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locale, "getencoding", lambda: encoding)
    assert Style.of(io.StringIO(), {}).unicode == unicode
