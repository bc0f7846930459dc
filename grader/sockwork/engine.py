"""Performs many checks, several at a time, each worker a process of its own."""

from __future__ import annotations

import ctypes
import io
import os
import pickle
import resource
import signal
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any, NoReturn

from sockwork.judge import Conditions, Judge
from sockwork.model import Check, Lab, Launch, Outcome

_LONGEST = 300.0  # seconds for one check before its worker is ended; times the deadline scale
_ATTEMPTS = 2  # for a check whose worker dies
_PR_SET_PDEATHSIG = 1  # prctl(2)


def run(
    checks: Sequence[Check],
    launches: Mapping[str, Launch],
    *,
    lab: Lab,
    seed: int,
    jobs: int = 0,
    without: Collection[str] = (),
    tier: str = "auto",
    keep: bool = False,
    deadline_scale: float = 1.0,
) -> Generator[Outcome, None, None]:
    """Performs the checks and yields each outcome as it is known. `jobs` 0: one per processor.

    Closing the generator ends what it has started.
    """
    conditions = Conditions(lab, launches, seed, frozenset(without), tier, keep, deadline_scale)
    schedule = Schedule(checks)
    workers = _Workers(checks, conditions, jobs or len(os.sched_getaffinity(0)))
    try:
        while not schedule.finished:
            yield from schedule.ruled_out(seed)
            for check in schedule.ready(workers.free):
                workers.assign(check, schedule.next)
            for outcome in workers.results():
                schedule.settle(outcome)
                yield outcome
    finally:
        workers.end()


# --- the order ---------------------------------------------------------------------------------


def blocking(check: Check, outcomes: Mapping[str, Outcome]) -> str | None:
    """The id of the check that keeps this one from being performed, if there is one."""
    for name in check.after:
        before = outcomes.get(name)
        if before is None or before.status == "pass":
            continue
        # A prerequisite that was skipped counts only if a failure was the reason.
        name_of_failed = blocking(before.check, outcomes) if before.status == "skip" else name
        if name_of_failed:
            return name_of_failed
    return None


def not_performed(check: Check, before: Outcome) -> Outcome:
    """The outcome of `check` when `before` keeps it from being performed."""
    what = "failed" if before.status == "fail" else "could not be judged"
    return Outcome(check, "skip", 0.0, reason=f"needs {before.check.id}, which {what}")


class Schedule:
    """Which checks can be performed when: those whose prerequisites are known, in their order."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self._chosen = {check.id for check in checks}
        self._left = list(checks)

    @property
    def finished(self) -> bool:
        return len(self._outcomes) == len(self._chosen)

    @property
    def next(self) -> Check | None:
        """The check that is likely to be performed next."""
        return self._left[0] if self._left else None

    def settle(self, outcome: Outcome) -> None:
        self._outcomes[outcome.check.id] = outcome

    def ruled_out(self, seed: int) -> Iterator[Outcome]:
        """The checks that a failed prerequisite rules out."""
        for check in list(self._left):
            failed = blocking(check, self._outcomes) if self._is_ready(check) else None
            if failed:
                self._left.remove(check)
                outcome = replace(not_performed(check, self._outcomes[failed]), seed=seed)
                self.settle(outcome)
                yield outcome

    def ready(self, count: int) -> list[Check]:
        """At most `count` checks to be performed now."""
        chosen = [check for check in self._left if self._is_ready(check)][:count]
        for check in chosen:
            self._left.remove(check)
        return chosen

    def _is_ready(self, check: Check) -> bool:
        return all(name in self._outcomes for name in set(check.after) & self._chosen)


# --- the workers -------------------------------------------------------------------------------


class _Worker:
    """One process that performs checks for us, and the check it has now."""

    def __init__(self, pid: int, connection: Connection) -> None:
        self.pid = pid
        self.connection = connection
        self.check: Check | None = None
        self.since = 0.0

    def end(self) -> int:
        """Ends it at once; its testbed notices and ends too. Returns how it had ended."""
        self.connection.close()
        os.kill(self.pid, signal.SIGKILL)  # not waited for yet, so the pid is still its own
        return os.waitpid(self.pid, 0)[1]


class _Workers:
    """At most `count` workers, started when there is work for them."""

    def __init__(self, checks: Sequence[Check], conditions: Conditions, count: int) -> None:
        self._checks = {check.id: check for check in checks}
        self._conditions = conditions
        self._count = count
        self._workers: list[_Worker] = []
        self._deaths: dict[str, int] = {}

    @property
    def free(self) -> int:
        return self._count - len(self._busy)

    @property
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.check]

    def assign(self, check: Check, then: Check | None) -> None:
        idle = [worker for worker in self._workers if not worker.check]
        worker = idle[0] if idle else self._start()
        worker.check = check
        worker.since = time.monotonic()
        worker.connection.send((check.id, then.id if then else None))

    def _start(self) -> _Worker:
        ours, theirs = Pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            others = [ours, *(worker.connection for worker in self._workers)]
            _work(theirs, others, parent, self._checks, self._conditions)
        theirs.close()
        worker = _Worker(pid, ours)
        self._workers.append(worker)
        return worker

    def results(self) -> list[Outcome]:
        """Waits for at least one worker; what has become known."""
        busy = self._busy
        if not busy:
            return []
        longest = _LONGEST * self._conditions.deadline_scale
        until = min(worker.since for worker in busy) + longest
        ready = wait([worker.connection for worker in busy], max(0.0, until - time.monotonic()))
        now = time.monotonic()
        outcomes = []
        for worker in busy:
            if worker.connection in ready:
                outcomes.append(self._receive(worker))
            elif now > worker.since + longest:
                outcomes.append(self._lost(worker, f"took longer than {longest:.0f} s"))
        return [outcome for outcome in outcomes if outcome]

    def _receive(self, worker: _Worker) -> Outcome | None:
        try:
            outcome = _unpickled(worker.connection.recv_bytes(), self._checks)
        except (EOFError, OSError):
            return self._lost(worker, "lost the process that performed it")
        worker.check = None
        return outcome

    def _lost(self, worker: _Worker, what: str) -> Outcome | None:
        """Does without this worker; its check gets another one, or is given up."""
        check = worker.check
        assert check
        self._workers.remove(worker)
        worker.end()
        self._deaths[check.id] = self._deaths.get(check.id, 0) + 1
        if self._deaths[check.id] < _ATTEMPTS:
            self.assign(check, None)
            return None
        return Outcome(check, "error", 0.0, reason=f"the check {what}", seed=self._conditions.seed)

    def end(self) -> None:
        """Ends all workers: those without work in order, the others at once."""
        for worker in self._workers:
            if worker.check:
                worker.end()
            else:
                worker.connection.close()
                os.waitpid(worker.pid, 0)
        self._workers.clear()


def _work(
    connection: Connection,
    others: Sequence[Connection],
    parent: int,
    checks: Mapping[str, Check],
    conditions: Conditions,
) -> NoReturn:
    """The life of a worker; it ends with its parent, however that ends."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(status)
        # A handler, not SIG_IGN, which the programs started would inherit. Ctrl-C is the parent's.
        signal.signal(signal.SIGINT, lambda number, frame: None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for other in others:
            other.close()
        allow_descriptors()
        _serve(connection, checks, Judge(conditions))
        status = 0
    finally:
        os._exit(status)


def _serve(connection: Connection, checks: Mapping[str, Check], judge: Judge) -> None:
    while True:
        try:
            name, then = connection.recv()
        except EOFError:
            break
        outcome = judge.perform(checks[name], checks.get(then))
        connection.send_bytes(_pickled(outcome))
    judge.close()


def allow_descriptors() -> None:
    """Raises our own limit of open descriptors as far as it goes, for checks with a crowd."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Pickler(pickle.Pickler):
    """A check travels as its id: its function exists in both processes already."""

    def persistent_id(self, value: Any) -> str | None:
        return value.id if isinstance(value, Check) else None


class _Unpickler(pickle.Unpickler):
    checks: Mapping[str, Check]

    def persistent_load(self, name: str) -> Check:
        return self.checks[name]


def _pickled(outcome: Outcome) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(outcome)
    return buffer.getvalue()


def _unpickled(data: bytes, checks: Mapping[str, Check]) -> Outcome:
    unpickler = _Unpickler(io.BytesIO(data))
    unpickler.checks = checks
    outcome: Outcome = unpickler.load()
    return outcome
