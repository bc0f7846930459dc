"""What this machine allows, found by the testbed by trying it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sockwork.paths import SetupError


@dataclass(frozen=True)
class Probe:
    """The tier, and the testbed's whole answer."""

    tier: str
    answer: Mapping[str, Any]

    def gives(self, word: str) -> bool:
        """Whether the machine has this capability, in its best tier."""
        return any(each["have"] for each in self.answer["capabilities"] if each["name"] == word)


@functools.cache
def probe() -> Probe:
    """Asks the testbed, once. Raises SetupError."""
    command = os.environ.get("SOCKWORK_TESTBED", "")
    try:
        done = subprocess.run([command, "probe"], capture_output=True, text=True, timeout=30)
        answer = json.loads(done.stdout)
        return Probe(answer["tier"], answer)
    except FileNotFoundError as error:
        raise SetupError("there is no testbed; start this with ./sockwork") from error
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        raise SetupError(f"the testbed cannot be asked: {error}") from error
