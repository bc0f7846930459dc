"""Waiting with early proof.

A wait ends when its goal is reached, when the testbed proves that the program can move nothing any
more, or at its deadline. The proof is asked for only after a short silence, so that success costs
nothing extra; after it held, the goal is looked at once more, and whatever moved in between makes
the proof void.
"""

from __future__ import annotations

import enum
import os
import select
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sockwork.facts import Fields
from sockwork.testbed import Reply, Seen, Testbed

_DEADLINE = 10.0  # seconds without any progress, where each processor has one thing to do
_MARGIN = 1.0  # in which the answer of a barrier whose deadline passed must come
_TOTAL = 60.0  # seconds of one wait in all, progress or not

_SLICE = 1 << 18  # bytes written in one go, so that reading has its turn


class Task(Protocol):
    """Something that goes on while the harness waits."""

    @property
    def done(self) -> bool:
        """The task has come to its end, well or not."""

    def advance(self) -> bool:
        """Does what can be done without waiting; true when anything moved."""

    def interests(self) -> Iterable[tuple[int, int]]:
        """The descriptors, with poll(2) events, after which advance() can do more."""


class Ending(enum.Enum):
    """How a wait ended."""

    REACHED = "reached"
    STUCK = "stuck"  # proven: nothing can move any more
    LATE = "late"  # the deadline passed


class Question:
    """A barrier of the testbed as a task; `seen` is its answer."""

    def __init__(self, testbed: Testbed, kind: str, fields: Fields, deadline: float) -> None:
        self.done = False
        self.seen: Seen | None = None
        self._testbed = testbed
        request = {"for": kind, "deadline": deadline, **fields}
        self._number = testbed.begin("wait", request)

    def advance(self) -> bool:
        reply = self._testbed.take(self._number)
        if reply:
            self._finish(reply)
        return reply is not None

    def interests(self) -> Iterable[tuple[int, int]]:
        return [(self._testbed.fileno(), select.POLLIN)]

    def answer(self) -> Seen:
        """The answer to a barrier that replies at once."""
        if not self.done:
            self._finish(self._testbed.await_reply(self._number))
        assert self.seen is not None
        return self.seen

    def abandon(self) -> None:
        """Ends the barrier; what it would have answered is of no use any more."""
        if not self.done:
            self.done = True
            self._testbed.forget(self._testbed.begin("cancel", {"request": self._number}))
            self._testbed.forget(self._number)

    def _finish(self, reply: Reply) -> None:
        self.done = True
        self.seen = Seen.parse(reply.fields)
        reply.discard()


class Outgoing:
    """Bytes on their way into a descriptor, as fast as it takes them."""

    def __init__(self, descriptor: int, write: Callable[[memoryview], int]) -> None:
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._write = write
        self._waiting = memoryview(b"")
        self._last: Callable[[], None] | None = None

    @property
    def done(self) -> bool:
        return not self._waiting

    @property
    def left(self) -> int:
        return len(self._waiting)

    def add(self, data: bytes) -> None:
        self._waiting = memoryview(bytes(self._waiting) + data)

    def finally_do(self, action: Callable[[], None]) -> None:
        """Performs this when everything is written: now, or later."""
        self._last = action
        self._finish()

    def advance(self) -> bool:
        if self.done:
            return False
        try:
            count = self._write(self._waiting[:_SLICE])
        except BlockingIOError:
            return False
        except OSError as error:
            self.error = error
            count = len(self._waiting)
        self._waiting = self._waiting[count:]
        self._finish()
        return True

    def _finish(self) -> None:
        if self.done and self._last:
            action, self._last = self._last, None
            try:
                action()
            except OSError as error:
                self.error = error

    def interests(self) -> Iterable[tuple[int, int]]:
        return [] if self.done else [(self._descriptor, select.POLLOUT)]


class Never:
    """A goal that is not reached: the wait is for stillness itself."""

    done = False

    def advance(self) -> bool:
        return False

    def interests(self) -> Iterable[tuple[int, int]]:
        return []


@dataclass(frozen=True)
class Stillness:
    """When a program counts as still. `untimed`: a thread in a call with a time-out is not."""

    settle_ms: int
    untimed: bool
    silence: float  # seconds before the question is worth asking


# A program is given up for good, so a time-out of its own counts as something that may still come.
_GIVEN_UP = Stillness(settle_ms=60, untimed=True, silence=0.1)
# Each look at a crowd of connections costs the testbed milliseconds in which it forwards nothing.
_CROWD_GIVEN_UP = Stillness(settle_ms=60, untimed=True, silence=1.0)


class Proof:
    """The question whether these runs can move anything any more."""

    def __init__(self, testbed: Testbed, runs: Iterable[int], stillness: Stillness) -> None:
        self.silence = stillness.silence
        self._testbed = testbed
        self._runs = tuple(runs)
        self._overlap = 2 * stillness.settle_ms / 1000
        self._asked_at = 0.0
        self._fields: dict[str, Any] = {
            "settle_ms": stillness.settle_ms,
            "untimed": stillness.untimed,
        }
        self._questions: list[Question] = []

    @property
    def asked(self) -> bool:
        return bool(self._questions)

    def ask(self, deadline: float) -> None:
        if not self._questions:
            self._asked_at = time.monotonic()
            self._questions = [
                Question(self._testbed, "quiescent", {"run": run, **self._fields}, deadline)
                for run in self._runs
            ]

    def held(self) -> bool:
        for question in self._questions:
            question.advance()
        if not self._questions or not all(question.done for question in self._questions):
            return False
        held = all(question.seen and question.seen.held for question in self._questions)
        # Each answer speaks of the settle time before it. Only if those times overlap were all
        # the runs still at once.
        if held and (len(self._runs) == 1 or time.monotonic() < self._asked_at + self._overlap):
            return True
        self._questions = []
        return False

    def drop(self) -> None:
        for question in self._questions:
            question.abandon()
        self._questions = []


class Waiter:
    """Performs the waits of one check. `runs` names the runs whose stillness is the proof."""

    def __init__(self, testbed: Testbed, scale: float, runs: Callable[[], Iterable[int]]) -> None:
        self._testbed = testbed
        self._scale = scale
        self._runs = runs
        self._background: list[Task] = []

    @property
    def _longest(self) -> float:
        return _TOTAL * self._scale

    @property
    def deadline(self) -> float:
        """Seconds without progress after which a wait ends; more on a crowded machine."""
        crowded = os.getloadavg()[0] / len(os.sched_getaffinity(0))
        return min(_DEADLINE * self._scale * max(1.0, crowded), self._longest)

    def keep_going(self, task: Task) -> None:
        """Advances this task during every wait, until it is done."""
        if task not in self._background:
            self._background.append(task)

    def until(
        self, goal: Task, *, deadline: float | None = None, given_up: Stillness | None = _GIVEN_UP
    ) -> Ending:
        """Waits for the goal; programs that are still as `given_up` says end the wait early."""
        stillness = given_up or _GIVEN_UP
        proof = Proof(self._testbed, self._runs() if given_up else (), stillness)
        try:
            return self._until(goal, proof, deadline or self.deadline)
        finally:
            proof.drop()

    def until_all(self, goal: Task) -> Ending:
        """The same for a goal of many connections, which takes its time."""
        return self.until(goal, deadline=self._longest, given_up=_CROWD_GIVEN_UP)

    def ask(
        self,
        kind: str,
        fields: Fields,
        *,
        deadline: float | None = None,
        given_up: Stillness | None = _GIVEN_UP,
        crowd: bool = False,
    ) -> Seen:
        """Waits for a barrier of the testbed. Its answer says whether it held, and what is now."""
        if crowd:
            deadline, given_up = self._longest, _CROWD_GIVEN_UP
        limit = deadline or self.deadline
        goal = Question(self._testbed, kind, fields, limit)
        self.until(goal, deadline=limit + _MARGIN, given_up=given_up)
        if goal.seen:
            return goal.seen
        goal.abandon()
        return Question(self._testbed, kind, fields, deadline=0.0).answer()

    def quiet(
        self, goal: Task | None = None, *, deadline: float | None = None, settle_ms: int = 20
    ) -> Ending:
        """Waits until nothing can move any more, or until `goal` is reached before."""
        still = Stillness(settle_ms, untimed=False, silence=0.0)
        return self.until(goal or Never(), deadline=deadline, given_up=still)

    def _until(self, goal: Task, proof: Proof, deadline: float) -> Ending:
        start = last = time.monotonic()
        while True:
            held = proof.held()  # asked before the look, so that whatever moved after it counts
            moved = self._advance(goal)
            now = time.monotonic()
            if goal.done:
                return Ending.REACHED
            if moved:
                proof.drop()
                last = now
            elif held:
                return Ending.STUCK
            if now > min(last + deadline, start + self._longest):
                return Ending.LATE
            if now >= last + proof.silence:
                proof.ask(deadline)
            wake = last + (proof.silence if now < last + proof.silence else deadline)
            self._poll(goal, proof, wake - now)

    def _advance(self, goal: Task) -> bool:
        moved = goal.advance()
        for task in self._background:
            moved = task.advance() or moved
        self._background = [task for task in self._background if not task.done]
        return moved

    def _poll(self, goal: Task, proof: Proof, seconds: float) -> None:
        interests: dict[int, int] = {}
        for task in [goal, *self._background]:
            for descriptor, events in task.interests():
                interests[descriptor] = interests.get(descriptor, 0) | events
        if proof.asked:
            interests[self._testbed.fileno()] = select.POLLIN
        poller = select.poll()
        for descriptor, events in interests.items():
            poller.register(descriptor, events)
        poller.poll(max(0.0, seconds) * 1000 + 1)
