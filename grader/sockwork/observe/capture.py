"""A capture file of any program as a trace, read by the testbed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sockwork.paths import SetupError
from sockwork.testbed import default_command

LIMIT: Final = 100_000  # packets; more take longer than somebody waits for a figure
_SECONDS: Final = 120
_NO_CAPTURE: Final = 2


class CaptureError(Exception):
    """The file is no capture that can be read; the message is one line."""


@dataclass(frozen=True)
class Read:
    """The trace, and in a sentence what of the file is not in it."""

    trace: bytes
    left_out: str


def read(path: Path) -> Read:
    """Raises CaptureError."""
    # An absolute path cannot be taken for an option.
    command = [str(default_command()), "read", str(path.absolute()), "--limit", str(LIMIT)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise CaptureError(f"it took more than {_SECONDS} seconds to read") from error
    except OSError as error:
        raise SetupError(f"the testbed cannot be asked: {error.strerror}") from error
    said = done.stderr.decode(errors="backslashreplace").strip()
    said = said.removeprefix(f"sockwork-testbed: {path.absolute()}: ")
    if done.returncode == _NO_CAPTURE:
        raise CaptureError(said)
    if done.returncode != 0:
        raise SetupError(f"the testbed failed with status {done.returncode}: {said}")
    return Read(done.stdout, said)
