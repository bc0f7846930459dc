"""The words the harness, the engine, the builder and the reports share.

Plain immutable values; no module here opens a file or a socket. Thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sockwork.diagnosis import Diagnosis

Verdict = Literal["pass", "fail", "skip", "error"]
Level = Literal["core", "challenge"]


@dataclass(frozen=True)
class Program:
    """One program a lab asks for, as lab.toml declares it."""

    name: str
    arguments: tuple[str, ...]  # the names of its arguments, in order: ("HOST", "PORT")
    role: Literal["server", "client", "tool"]
    summary: str


@dataclass(frozen=True)
class Check:
    """One check: its description (from @check) and the function that performs it."""

    id: str
    title: str
    stage: str
    program: str
    points: float
    level: Level
    why: str  # the docstring of the function
    hints: tuple[str, ...]
    concept: str
    covers: tuple[str, ...]
    needs: tuple[str, ...]
    after: tuple[str, ...]
    hosts: tuple[str, ...]
    names: str | None
    resolver: str | None
    function: Callable[[Any], None]
    optimised: bool = False  # performed on the program as one would ship it, without sanitizers


@dataclass(frozen=True)
class Lab:
    """One lab folder: labs/NN-name."""

    number: int
    id: str  # "02-tcp-echo-server", the folder's name
    name: str  # "tcp-echo-server"
    title: str
    summary: str
    stages: tuple[str, ...]
    programs: tuple[Program, ...]
    folder: Path
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Launch:
    """How to start one built program inside the sandbox.

    `directory` is bound read-only to /work and is the current directory; argv is relative to the
    sandbox. With `shell` the command sees the contract's arguments also as variables ($HOST, $PORT)
    named after the program's declared arguments.
    """

    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    shell: bool = False
    optimised: Launch | None = None  # the same program, built for load checks, if there is one


@dataclass(frozen=True)
class Step:
    """One thing the harness did or saw, in words, `time` in nanoseconds on the testbed's clock."""

    time: int
    text: str


@dataclass(frozen=True)
class Failure:
    """What a failed check tells: observed against expected, and the evidence for it."""

    reason: str  # a stable word: "wrong-bytes", "not-listening", "signal", "reset", "leak", ...
    observed: str  # one sentence
    expected: str  # one sentence
    evidence: tuple[str, ...] = ()  # lines: byte diff, table, packets; at most 10 are shown
    source: str | None = None  # "echo_server.cpp:71" when a sanitizer report or crash names it


@dataclass(frozen=True)
class Outcome:
    """The result of one check of one run."""

    check: Check
    status: Verdict
    seconds: float
    reason: str = ""  # for skip and error: the sentence why; for fail: Failure.reason
    failure: Failure | None = None
    steps: tuple[Step, ...] = ()
    stdout: bytes = b""  # of the judged program, as kept
    stderr: str = ""
    command: tuple[str, ...] = ()  # the program's command line as started first
    trace: bytes | None = None  # JSON lines; only when the check did not pass or all are kept
    capture: bytes | None = None  # .pcap, likewise
    seed: int = 0
    diagnosis: Diagnosis | None = None  # of a failure
