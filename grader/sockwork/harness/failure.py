"""The two exceptions by which a check ends early on purpose."""

from __future__ import annotations

from sockwork.model import Failure


class Failed(Exception):
    """An expectation did not hold. Anything else that escapes a check is an error of ours."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.observed} Expected: {failure.expected}")
        self.failure = failure


class Skipped(Exception):
    """The check cannot be performed here; the text says what is missing."""
