"""Performs one check in a fresh testbed and says how it went.

The verdict comes from the check alone. An exception of ours, a testbed that died, a frame that was
lost: these are errors, tried once more and never shown as a failure of the program judged.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sockwork.diagnosis import diagnose
from sockwork.harness.bed import Bed
from sockwork.harness.failure import Failed, Skipped
from sockwork.harness.scene import Scene
from sockwork.model import Check, Failure, Lab, Launch, Outcome
from sockwork.probe import probe
from sockwork.testbed import Opened, Testbed, TestbedError


@dataclass(frozen=True)
class Conditions:
    """What all checks of one run have in common."""

    lab: Lab
    launches: Mapping[str, Launch]
    seed: int
    without: frozenset[str] = frozenset()
    tier: str = "auto"
    keep: bool = False
    deadline_scale: float = 1.0


class Testbeds:
    """Fresh testbeds, each used once.

    Making and ending network namespaces takes the kernel some 60 ms each, nearly all of it spent
    waiting. So the next testbed opens while the current one is in use, and the last one ends.
    """

    __test__ = False  # pytest: not a test class

    def __init__(self, tier: str, scale: float) -> None:
        self._tier = tier
        self._scale = scale
        self._spare: tuple[Mapping[str, Any], Testbed, int] | None = None
        self._ending: Testbed | None = None

    @contextmanager
    def one(self, request: Mapping[str, Any]) -> Iterator[tuple[Testbed, Opened]]:
        """A testbed opened with this request, for the length of the block."""
        testbed, opening = self._take(request)
        try:
            yield testbed, testbed.opened(opening)
        finally:
            self._retire(testbed)

    def _take(self, request: Mapping[str, Any]) -> tuple[Testbed, int]:
        if self._spare and self._spare[0] == request:
            _, testbed, opening = self._spare
            self._spare = None
            return testbed, opening
        return self._start(request)

    def _start(self, request: Mapping[str, Any]) -> tuple[Testbed, int]:
        testbed = Testbed(tier=self._tier, scale=self._scale)
        return testbed, testbed.begin("open", request)

    def prepare(self, request: Mapping[str, Any]) -> None:
        """Begins to open a testbed for a later check."""
        if not self._spare:
            self._spare = (request, *self._start(request))

    def _retire(self, testbed: Testbed) -> None:
        testbed.release()
        if self._ending:
            self._ending.close()
        self._ending = testbed

    def close(self) -> None:
        """Ends every testbed and waits until they are gone."""
        if self._spare:
            self._retire(self._spare[1])
            self._spare = None
        if self._ending:
            self._ending.close()
            self._ending = None


class Judge:
    """Performs checks one after the other. Close it when no more are to come."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._testbeds = Testbeds(conditions.tier, conditions.deadline_scale)

    def perform(self, check: Check, then: Check | None = None) -> Outcome:
        """The outcome of `check`. `then` is the check that comes next, if that is known."""
        impossible = self._impossible(check)
        if impossible:
            return Outcome(check, "skip", 0.0, reason=impossible, seed=self._conditions.seed)
        traced = self._conditions.keep
        outcome = self._attempt(check, then, traced)
        if outcome.status == "error":
            outcome = self._attempt(check, then, traced)
        if outcome.status != "fail":
            return outcome
        explained = traced or "ptrace" in check.needs or check.optimised
        return self._diagnosed(outcome if explained else self._explained(outcome))

    def close(self) -> None:
        self._testbeds.close()

    def _impossible(self, check: Check) -> str | None:
        if check.program not in self._conditions.launches:
            return f"the submission holds no {check.program}"
        left_out = [word for word in check.needs if word in self._conditions.without]
        return f"needs {left_out[0]}, which was left out" if left_out else None

    def _explained(self, outcome: Outcome) -> Outcome:
        """A failed check once more, now with every system call recorded.

        Recording slows a program down, so the verdict is that of the first time. The second time is
        its evidence if it shows the same, and is left out otherwise.
        """
        again = self._attempt(outcome.check, None, traced=True)
        if again.status != "fail" or again.reason != outcome.reason:
            return outcome
        return replace(again, seconds=outcome.seconds + again.seconds)

    def _diagnosed(self, outcome: Outcome) -> Outcome:
        try:
            return replace(outcome, diagnosis=diagnose(outcome, self._conditions.lab))
        except Exception:  # a verdict is not lost for want of an explanation
            return outcome

    def _attempt(self, check: Check, then: Check | None, traced: bool) -> Outcome:
        start = time.monotonic()
        try:
            with self._testbeds.one(_opening(check)) as (testbed, opened):
                if then:
                    self._testbeds.prepare(_opening(then))
                outcome = self._in_testbed(check, testbed, opened, traced)
        except TestbedError as error:
            outcome = Outcome(check, "error", 0.0, reason=f"testbed: {error}")
        seconds = time.monotonic() - start
        return replace(outcome, seconds=seconds, seed=self._conditions.seed)

    def _in_testbed(self, check: Check, testbed: Testbed, opened: Opened, traced: bool) -> Outcome:
        missing = [word for word in check.needs if word not in opened.capabilities]
        if missing:
            return Outcome(check, "skip", 0.0, reason=self._why_without(missing[0]))
        conditions = self._conditions
        scene = Scene(
            testbed,
            opened,
            check,
            conditions.lab.programs,
            conditions.launches,
            conditions.deadline_scale,
            # Under load the cost of a stop at every call would be what is judged.
            _is_traced(check, traced) and "ptrace" in opened.capabilities,
        )
        bed = Bed(scene, random.Random(f"{conditions.seed}:{conditions.lab.id}:{check.id}"))
        try:
            return self._on(bed, scene)
        finally:
            bed.close()

    def _why_without(self, word: str) -> str:
        """What keeps a capability from us: the tier that was asked for, or the machine."""
        if probe().gives(word):
            return f"needs {word}, and tier {self._conditions.tier} was asked for"
        return f"needs {word}, which this machine does not give; ./sockwork doctor tells why"

    def _on(self, bed: Bed, scene: Scene) -> Outcome:
        failure = None
        try:
            scene.check.function(bed)
            scene.inspect()
        except Failed as failed:
            failure = failed.failure
        except Skipped as skipped:
            return Outcome(scene.check, "skip", 0.0, reason=str(skipped))
        except TestbedError:
            raise
        except Exception as error:  # a fault in the check or in the harness
            return Outcome(scene.check, "error", 0.0, _broken(error), steps=tuple(scene.steps))
        return self._outcome(scene, failure)

    def _outcome(self, scene: Scene, failure: Failure | None) -> Outcome:
        run = next((run for run in scene.runs if run.program == scene.check.program), None)
        outcome = Outcome(
            scene.check,
            status="fail" if failure else "pass",
            seconds=0.0,
            reason=failure.reason if failure else "",
            failure=failure,
            steps=tuple(scene.steps),
            stdout=run.stdout if run else b"",
            stderr=run.stderr if run else "",
            command=run.command if run else (),
        )
        if failure or self._conditions.keep:
            trace = scene.testbed.attachment("trace")
            capture = scene.testbed.attachment("capture") if scene.link else None
            outcome = replace(outcome, trace=trace, capture=capture)
        scene.testbed.end()
        return outcome


def _is_traced(check: Check, wanted: bool) -> bool:
    return "ptrace" in check.needs or (wanted and not check.optimised)


def _opening(check: Check) -> dict[str, Any]:
    """The request for the testbed that a check needs."""
    optional = {"names": check.names, "resolver": check.resolver}
    given = {name: value for name, value in optional.items() if value is not None}
    return {"hosts": check.hosts, **given}


def _broken(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    return f"the check could not be performed: {type(error).__name__}: {error} ({place})"
