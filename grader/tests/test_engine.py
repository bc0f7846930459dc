"""The engine: order, prerequisites, skips, errors, retries, workers that die, and nothing left over."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from toys import launches, make_check, make_lab
from sockwork import engine, testbed
from sockwork.engine import Schedule, blocking
from sockwork.probe import probe
from sockwork.harness import Bed
from sockwork.judge import Conditions, Judge
from sockwork.model import Check, Outcome, Verdict
from sockwork.testbed import Testbed, TestbedError

Function = Callable[[Bed], None]


def named(name: str, function: Function | None = None, **options: Any) -> Check:
    """A check with this id; without a function it does nothing and passes."""

    def nothing(bed: Bed) -> None:
        """Why."""

    chosen = function or nothing
    chosen.__name__ = "test_" + name.replace("-", "_")
    return make_check(chosen, **options)


# --- the order, without a testbed --------------------------------------------------------------


def outcomes(**verdicts: Verdict) -> dict[str, Outcome]:
    """Outcomes of a chain a <- b <- c: each check comes after the one before."""
    chain = {}
    before: tuple[str, ...] = ()
    for name, verdict in verdicts.items():
        chain[name] = Outcome(named(name, after=before), verdict, 0.0)
        before = (name,)
    return chain


@pytest.mark.parametrize(
    ("known", "blocked_by"),
    [
        (outcomes(a="pass", b="pass"), None),
        (outcomes(a="pass", b="fail"), "b"),
        (outcomes(a="pass", b="error"), "b"),
        (outcomes(a="fail", b="skip"), "a"),
        (outcomes(a="pass", b="skip"), None),  # skipped for want of a capability: no failure
        (outcomes(a="skip", b="skip"), None),
        ({}, None),  # the prerequisite was not chosen
    ],
)
def test_what_keeps_a_check_from_being_performed(
    known: dict[str, Outcome], blocked_by: str | None
) -> None:
    assert blocking(named("c", after=("b",)), known) == blocked_by


@pytest.mark.parametrize(
    ("verdict", "what"), [("fail", "which failed"), ("error", "which could not be judged")]
)
def test_the_reason_names_what_became_of_the_check_before(verdict: Verdict, what: str) -> None:
    schedule = Schedule([named("before"), named("behind", after=("before",))])
    [before] = schedule.ready(2)
    schedule.settle(Outcome(before, verdict, 0.0))
    assert [outcome.reason for outcome in schedule.ruled_out(1)] == [f"needs before, {what}"]


def test_the_schedule_keeps_the_order_and_waits_for_prerequisites() -> None:
    a, b, c, d = (
        named("a"),
        named("b", after=("a",)),
        named("c"),
        named("d", after=("b", "not-chosen")),
    )
    schedule = Schedule([a, b, c, d])
    assert schedule.ready(9) == [a, c]
    assert schedule.ready(9) == []
    schedule.settle(Outcome(a, "pass", 0.0))
    assert schedule.ready(1) == [b]
    schedule.settle(Outcome(b, "fail", 0.0))
    assert schedule.ready(9) == [d]
    schedule.settle(Outcome(d, "pass", 0.0))
    assert not schedule.finished
    schedule.settle(Outcome(c, "pass", 0.0))
    assert schedule.finished


def test_what_is_ruled_out_rules_out_what_comes_after() -> None:
    chain = [named("a"), named("b", after=("a",)), named("c", after=("b",)), named("d")]
    schedule = Schedule(chain)
    schedule.ready(1)
    schedule.settle(Outcome(chain[0], "fail", 0.0))
    skipped = list(schedule.ruled_out(seed=5))
    assert [(o.check.id, o.status, o.reason, o.seed) for o in skipped] == [
        ("b", "skip", "needs a, which failed", 5),
        ("c", "skip", "needs a, which failed", 5),
    ]
    assert schedule.ready(9) == [chain[3]]


# --- whole runs --------------------------------------------------------------------------------

Run = Callable[..., dict[str, Outcome]]


@pytest.fixture
def run(toys: Path) -> Iterator[Run]:
    """Runs checks with the engine; the outcomes by id, in the order in which they came."""

    def run(checks: Collection[Check], mode: str = "right", **options: Any) -> dict[str, Outcome]:
        given: dict[str, Any] = {"seed": 1, "jobs": 2, **options}
        found = engine.run(list(checks), launches(toys, mode), lab=make_lab(toys), **given)
        return {outcome.check.id: outcome for outcome in found}

    yield run
    assert children() == [], "a worker is left"


def children() -> list[int]:
    """The processes that this one has started and not waited for."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in task.read_text().split()]


def echo(bed: Bed) -> None:
    """Why."""
    connection = bed.connect(bed.start_server())
    connection.send(b"hello")
    connection.expect(b"hello")


def test_a_tier_that_was_asked_for_is_the_reason_and_not_the_machine(run: Run) -> None:
    if not probe().gives("link"):
        pytest.skip("this machine gives no link")
    outcome = run([named("far", needs=("link",))], tier="T0")["far"]
    assert (outcome.status, outcome.reason) == ("skip", "needs link, and tier T0 was asked for")


def test_verdicts(run: Run) -> None:
    checks = [
        named("echoes", lambda bed: echo(bed)),
        named("after-it", after=("echoes",)),
        named("flies", needs=("link", "wings")),
        named("client", program="echo_client"),
        named("on-its-own"),
    ]
    right = run(checks)
    assert [right[c.id].status for c in checks] == ["pass", "pass", "skip", "pass", "pass"]
    assert right["flies"].reason == (
        "needs wings, which this machine does not give; ./sockwork doctor tells why"
    )
    wrong = run(checks, mode="wrong")
    assert [wrong[c.id].status for c in checks] == ["fail", "skip", "skip", "pass", "pass"]
    assert wrong["echoes"].reason == "wrong-bytes"
    assert wrong["echoes"].check is checks[0]
    assert wrong["after-it"].reason == "needs echoes, which failed"


def test_what_cannot_be_performed_is_skipped(run: Run, toys: Path) -> None:
    left_out = run([named("six", needs=("inet6",))], without={"inet6"})["six"]
    assert (left_out.status, left_out.reason) == ("skip", "needs inet6, which was left out")
    checks = [named("other", program="nothing"), named("echoes", lambda bed: echo(bed))]
    found = run(checks)
    assert found["other"].reason == "the submission holds no nothing"
    assert found["echoes"].status == "pass"

    def starts_another(bed: Bed) -> None:
        bed.start(program="absent")

    assert run([named("more", starts_another)])["more"].reason == "the submission holds no absent"


def test_a_fault_of_the_check_is_an_error_and_tried_again(run: Run, tmp_path: Path) -> None:
    tries = tmp_path / "tries"

    def divides(bed: Bed) -> None:
        with tries.open("a") as file:
            file.write("x")
        bed.step(f"{1 / 0}")

    outcome = run([named("divides", divides)])["divides"]
    assert outcome.status == "error" and "ZeroDivisionError" in outcome.reason
    assert "test_engine.py:" in outcome.reason
    assert tries.read_text() == "xx"


def test_an_error_that_does_not_come_again_is_no_error(run: Run, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def fails_once(bed: Bed) -> None:
        if not seen.exists():
            seen.touch()
            raise OSError("the machine had a bad moment")
        echo(bed)

    assert run([named("once", fails_once)])["once"].status == "pass"


def test_a_testbed_that_dies_is_an_error(run: Run) -> None:
    def kills_it(bed: Bed) -> None:
        bed.start_server()
        bed._scene.testbed.kill()
        bed.start_server()

    outcome = run([named("dies", kills_it), named("next", lambda bed: echo(bed))])
    assert outcome["dies"].status == "error"
    assert outcome["dies"].reason.startswith("testbed: the testbed ended with status -9")
    assert outcome["next"].status == "pass"


def test_a_worker_that_dies_is_replaced(run: Run, tmp_path: Path) -> None:
    seen = tmp_path / "seen"

    def dies_once(bed: Bed) -> None:
        if not seen.exists():
            seen.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    def dies(bed: Bed) -> None:
        os._exit(0)

    outcome = run([named("once", dies_once), named("always", dies), named("next")])
    assert [o.status for o in (outcome["once"], outcome["next"])] == ["pass", "pass"]
    assert outcome["always"].status == "error"
    assert outcome["always"].reason == "the check lost the process that performed it"


def test_a_check_that_never_ends_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_LONGEST", 0.5)

    def sleeps(bed: Bed) -> None:
        signal.pause()

    outcome = run([named("sleeps", sleeps)])["sleeps"]
    assert (outcome.status, outcome.reason) == ("error", "the check took longer than 0 s")


def test_the_random_values_depend_on_the_seed_alone(run: Run) -> None:
    def tells(bed: Bed) -> None:
        bed.fail(f"{bed.port} {bed.token()!r} {bed.bytes(4)!r}", "nothing", reason="told")

    def told(**options: Any) -> list[str]:
        found = run([named("one", lambda b: tells(b)), named("two", lambda b: tells(b))], **options)
        failures = [found[name].failure for name in ("one", "two")]
        return [failure.observed for failure in failures if failure]

    first = told(seed=3, jobs=1)
    assert told(seed=3, jobs=2) == first
    assert told(seed=4) != first and first[0] != first[1]


def test_many_workers_change_no_verdict(run: Run) -> None:
    checks = [named(f"echo-{n}", lambda bed: echo(bed)) for n in range(16)]
    assert {o.status for o in run(checks, jobs=16).values()} == {"pass"}
    found = run(checks, mode="silent", jobs=16)
    assert {(o.status, o.reason) for o in found.values()} == {("fail", "missing-bytes")}


def test_evidence_is_kept_when_asked(run: Run) -> None:
    check = named("echoes", lambda bed: echo(bed))
    assert run([check])["echoes"].trace is None
    kept = run([check], keep=True)["echoes"]
    assert kept.trace and b'"kind":"step"' in kept.trace
    assert kept.command[0] == "./toy" and kept.steps and kept.seed == 1


def test_closing_the_run_early_ends_the_workers(toys: Path) -> None:
    checks = [named(f"echo-{n}", lambda bed: echo(bed)) for n in range(8)]
    found = engine.run(checks, launches(toys), lab=make_lab(toys), seed=1, jobs=2)
    assert next(found).status == "pass"
    found.close()
    assert children() == []


FOREVER = """
import os, signal, sys
from pathlib import Path
from toys import launches, make_check, make_lab
from sockwork import engine

def waits(bed):
    bed.start_server()
    print(os.getpid(), bed._scene.testbed._process.pid, flush=True)
    signal.pause()

folder = Path(sys.argv[1])
list(engine.run([make_check(waits)], launches(folder), lab=make_lab(folder), seed=1, jobs=1))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_workers_and_testbeds(toys: Path, number: signal.Signals) -> None:
    folders = [str(Path(__file__).parent), str(Path(engine.__file__).parents[1])]
    environment = {**os.environ, "PYTHONPATH": ":".join(folders)}
    argv = [sys.executable, "-c", FOREVER, str(toys)]
    parent = subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout
    started = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(started) == 2, parent.communicate()
    parent.send_signal(number)
    parent.communicate(timeout=30)
    for pid in started:
        assert ended(pid), f"{pid} outlives its parent"


def ended(pid: int) -> bool:
    """Waits until a process that is not ours is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


# --- the client of the control protocol --------------------------------------------------------


def test_a_testbed_that_is_not_there() -> None:
    with pytest.raises(TestbedError, match="cannot start /nowhere/testbed"):
        Testbed(Path("/nowhere/testbed"))


def test_a_testbed_that_says_why_it_ended(tmp_path: Path) -> None:
    script = tmp_path / "testbed"
    script.write_text("#!/bin/sh\necho 'no namespaces here' >&2\nexit 7\n")
    script.chmod(0o755)
    bed = Testbed(script)
    with pytest.raises(TestbedError, match="ended with status 7: no namespaces here"):
        bed.call("open")
    bed.close()


def test_a_testbed_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testbed, "_REPLY_LIMIT", 0.2)
    script = tmp_path / "testbed"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    bed = Testbed(script)
    start = time.monotonic()
    with pytest.raises(TestbedError, match="did not answer in time"):
        bed.call("open")
    assert time.monotonic() - start < 30
    bed.close()


def test_refusals_have_their_code() -> None:
    bed = Testbed()
    bed.opened(bed.begin("open"))
    refused_requests: list[tuple[str, dict[str, Any], str]] = [
        ("dance", {}, "usage"),
        ("rows", {"host": "nobody"}, "unknown"),
        ("processes", {"run": 9}, "unknown"),
        ("run", {"argv": ["/nowhere/program"]}, "exec"),
    ]
    for verb, fields, code in refused_requests:
        with pytest.raises(TestbedError) as refused:
            bed.call(verb, fields)
        assert refused.value.code == code
    bed.end()
    bed.close()
    bed.close()


def test_large_replies_come_whole(toys: Path) -> None:
    bed = Testbed()
    bed.opened(bed.begin("open"))
    argv = ["/bin/sh", "-c", "seq 200000; seq 3 >&2"]
    run = bed.run({"name": "seq", "argv": argv}).run
    bed.call("wait", {"for": "exited", "run": run})
    assert bed.output(run, "stdout") == b"".join(b"%d\n" % n for n in range(1, 200001))
    assert bed.output(run, "stderr") == b"1\n2\n3\n"
    bed.end()
    bed.close()


def test_testbeds_are_used_once(toys: Path) -> None:
    """The spare testbed that was opened during one check serves the next one, and only that."""
    seen: list[int] = []

    def notes(bed: Bed) -> None:
        seen.append(bed._scene.testbed._process.pid)

    check = named("notes", notes)
    judge = Judge(Conditions(make_lab(toys), launches(toys), seed=1))
    third = named("third", notes, hosts=("target", "peer", "third"), needs=("link",))
    for one, then in [(check, check), (check, third), (third, None), (check, None)]:
        assert judge.perform(one, then).status in ("pass", "skip")
    judge.close()
    assert len(set(seen)) == len(seen)
    assert children() == []
