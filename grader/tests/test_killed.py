"""Whenever `./sockwork check` is ended, nothing of it stays: no process, namespace, mount or file.

The run is ended at moments spread over its whole length. This process becomes the subreaper of
everything below it, so that nothing can slip away by losing its parent.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
MOMENTS = 6  # for each signal
GONE = 20.0  # seconds in which everything must have ended


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    yield
    prctl(PR_SET_CHILD_SUBREAPER, 0)


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = ["/usr/bin/python3", "-P", "-m", "sockwork", "check", "2", "--solutions"]
    options = ["--only", "core", "--json", str(folder / "results.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "grader"), "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def children() -> set[int]:
    """The processes below this one, the ended ones reaped."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    mine = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in mine for pid in task.read_text().split()}


def mounts() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def whole_length(folder: Path) -> float:
    begin = time.monotonic()
    assert start(folder).wait(300) in (0, 1)
    return time.monotonic() - begin


def test_nothing_stays_when_a_run_is_ended(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    length = whole_length(tmp_path)
    (tmp_path / "results.json").unlink()
    before = (children(), mounts())
    assert before[0] == set()
    for number in range(2 * MOMENTS):
        how = signal.SIGKILL if number % 2 else signal.SIGINT
        moment = length * (number // 2 + 0.5) / MOMENTS
        run = start(tmp_path)
        # The moment is the point of this test: a clock, not a barrier, chooses it.
        try:
            run.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(run.pid, how)
        status = run.wait(GONE)
        said = f"{how.name} after {moment:.2f} s, status {status}"
        until = time.monotonic() + GONE
        left = children()
        while left and time.monotonic() < until:
            os.sched_yield()
            left = children()
        assert not left, f"{said}: {[command_of(pid) for pid in left]}"
        assert mounts() == before[1], said
        assert list((tmp_path / "tmp").iterdir()) == [], said
        files = {path.name for path in tmp_path.iterdir()} - {"tmp"}
        assert files <= {"results.json"}, said
        if files:
            json.loads((tmp_path / "results.json").read_text())
            (tmp_path / "results.json").unlink()


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return f"{pid} (ended)"
