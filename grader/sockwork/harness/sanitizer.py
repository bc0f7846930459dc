"""Finds the report of a sanitizer in what a program wrote to stderr."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ERROR = re.compile(r"ERROR: (?P<tool>\w+Sanitizer): (?P<kind>[^\n]*)")
_RACE = re.compile(r"WARNING: (?P<tool>ThreadSanitizer): (?P<kind>[^\n(]*)")
_UNDEFINED = re.compile(r"^(?P<file>[^\n:]+):(?P<line>\d+):\d+: runtime error: (?P<kind>.*)$", re.M)
_FRAME = re.compile(r"^\s+#\d+ .* (?P<file>[^\s:]+):(?P<line>\d+)(:\d+)?$", re.M)
# The tail of a report's first line: addresses that differ from run to run.
_ADDRESS = re.compile(r"( on (unknown )?(address )?0x| on unknown address| \(pc |: 0x).*")
_NUMBER = re.compile(r" 0x[0-9a-f]+")
# Not the submission's own: the C library was built with relative paths; common's headers are ours.
_FOREIGN = re.compile(r"^/usr/|^[^/]+/|/libsanitizer/|/include/sock/")


@dataclass(frozen=True)
class Report:
    """What a sanitizer found; `source` is "file:line", of the submission where one is named."""

    tool: str
    kind: str
    source: str | None
    lines: tuple[str, ...]


def find(stderr: str) -> Report | None:
    """The first report in `stderr`, or None."""
    found = [match for match in (_ERROR.search(stderr), _RACE.search(stderr)) if match]
    undefined = _UNDEFINED.search(stderr)
    if undefined and not any(match.start() < undefined.start() for match in found):
        return _of_undefined(undefined)
    return _of_stack(found[0], stderr) if found else None


def _of_undefined(match: re.Match[str]) -> Report:
    source = _place(match)
    kind = _NUMBER.sub("", match["kind"])
    line = f"{source}: runtime error: {kind}"
    return Report("UndefinedBehaviorSanitizer", kind, source, (line,))


def _of_stack(match: re.Match[str], stderr: str) -> Report:
    report = stderr[match.start() :]
    stack = report.split("\n\n", 1)[0]  # what follows tells where the memory came from
    frames = list(_FRAME.finditer(stack))
    own = [frame for frame in frames if not _FOREIGN.search(frame["file"])]
    source = _place((own or frames)[0]) if frames else None
    kind = _ADDRESS.sub("", match["kind"]).strip()
    lines = (f"{match['tool']}: {kind}", *(frame[0].strip() for frame in own[:2]))
    return Report(match["tool"], kind, source, lines)


def _place(match: re.Match[str]) -> str:
    return f"{match['file'].rsplit('/', 1)[-1]}:{match['line']}"
