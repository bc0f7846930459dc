"""`sockwork test`: the tests of the kit itself, section by section."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable
from dataclasses import dataclass

import click

from sockwork import paths
from sockwork.git import git
from sockwork.report.live import Progress
from sockwork.text import did_you_mean

_SHOWN_OF_LOG = 60


@dataclass(frozen=True)
class _Count:
    passed: int = 0
    failed: int = 0

    def __add__(self, other: _Count) -> _Count:
        return _Count(self.passed + other.passed, self.failed + other.failed)


class _Section:
    """Runs the tools of one section, their output in a log of its own."""

    def __init__(self, name: str, full: bool) -> None:
        self.full = full
        self.log = paths.ROOT / "build" / "test" / f"{name}.log"
        self.report = self.log.with_suffix(".xml")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.report.unlink(missing_ok=True)

    def run(self, *command: str) -> bool:
        """Runs one tool; whether it was content."""
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(command)}\n"[:400].encode())
            log.flush()
            done = subprocess.run(
                command, cwd=paths.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return done.returncode == 0

    def tool(self, *command: str) -> _Count:
        """A tool that says yes or no."""
        return _Count(1, 0) if self.run(*command) else _Count(0, 1)

    def tests(self, *command: str) -> _Count:
        """A test runner that writes a JUnit file to `report`."""
        content = self.run(*command)
        count = self._counted()
        return count if content or count.failed else count + _Count(0, 1)

    def _counted(self) -> _Count:
        if not self.report.exists():
            return _Count(0, 1)
        count = _Count()
        for case in xml.parse(self.report).iter("testcase"):
            children = {child.tag for child in case}
            if children & {"failure", "error"}:
                count += _Count(0, 1)
            elif "skipped" not in children:
                count += _Count(1, 0)
        return count


# --- the sections ------------------------------------------------------------------------------


def _format(section: _Section) -> _Count:
    return section.tool("clang-format", "--dry-run", "-Werror", *_files(*_CXX)) + section.tool(
        sys.executable, "-m", "black", "--check", "--quiet", "--diff", *_files("*.py")
    )


def _lint(section: _Section) -> _Count:
    count = section.tool("shellcheck", "sockwork", ".ci/run")
    count += section.tool("shellcheck", "--shell=bats", *_files("*.bats"))
    if section.full:
        count += section.tool("cmake", "--preset", "clang")
        for source in _files("common/*.cc", "grader/testbed/*.cc", "solutions/*.cpp"):
            count += section.tool("clang-tidy", "-p", "build/clang", "--quiet", source)
    return count


def _types(section: _Section) -> _Count:
    return section.tool(sys.executable, "-m", "mypy", "--strict", "grader/sockwork")


def _cxx(section: _Section) -> _Count:
    count = _preset(section, "dev")
    if section.full:
        count += _preset(section, "clang") + _preset(section, "tsan")
        count += section.tool("grader/testbed/fuzz/run", _FUZZ_SECONDS)
    return count


def _preset(section: _Section, name: str) -> _Count:
    section.report.unlink(missing_ok=True)
    for words in (["cmake", "--preset", name], ["cmake", "--build", "--preset", name]):
        if not section.run(*words):
            return _Count(0, 1)
    ctest = ("ctest", "--preset", name, "--output-junit", str(section.report))
    return section.tests(*ctest, "-j", str(_cores()))


def _python(section: _Section) -> _Count:
    words = [sys.executable, "-m", "pytest", "-q", "-n", str(_cores())]
    words += [] if section.full else ["-m", "not slow"]
    if shutil.which("npm") and not (_BROWSER / "node_modules").is_dir():
        section.run("npm", "ci", "--no-audit", "--no-fund", "--prefix", str(_BROWSER))
    return section.tests(*words, f"--junitxml={section.report}")


def _cli(section: _Section) -> _Count:
    # bats chooses the name of its report.
    words = ["bats", "--report-formatter", "junit", "--output", str(section.log.parent)]
    section.report = section.log.with_name("report.xml")
    section.report.unlink(missing_ok=True)
    return section.tests(*words, "grader/tests/cli")


def _solutions(section: _Section) -> _Count:
    from sockwork import results

    found = section.log.with_suffix(".json")
    found.unlink(missing_ok=True)
    words = [sys.executable, "-P", "-m", "sockwork", "check", "--solutions", "--all"]
    content = section.run(*words, "--json", str(found))
    count = _Count()
    for status in results.statuses(found):
        count += _Count(status == "pass", status in ("fail", "error"))
    return count if content or count.failed else count + _Count(0, 1)


_BROWSER = paths.ROOT / "grader" / "tests" / "browser"  # its tests say what they miss, and skip
_FUZZ_SECONDS = "600"
_CXX = ("*.h", "*.cc", "*.cpp", "*.c")
_SECTIONS: dict[str, Callable[[_Section], _Count]] = {
    "format": _format,
    "lint": _lint,
    "types": _types,
    "c++": _cxx,
    "python": _python,
    "cli": _cli,
    "solutions": _solutions,
}


def _complete_section(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    return [name for name in _SECTIONS if name.startswith(incomplete)]


@click.command("test")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=_complete_section)
@click.option("--full", is_flag=True, help="Also what takes long: a second compiler, slow tests.")
def command(names: tuple[str, ...], full: bool) -> int:
    """Run the kit's own tests: all sections, or those named.

    Sections: format, lint, types, c++, python, cli, solutions.
    """
    for name in names:
        if name not in _SECTIONS:
            hint = did_you_mean(name, _SECTIONS) or f"; there are {', '.join(_SECTIONS)}"
            raise click.UsageError(f"no section {name}{hint}")
    total = _Count()
    with Progress(sys.stderr) as progress:
        for name, perform in _SECTIONS.items():
            if not names or name in names:
                progress.show(f"{name}...")
                total += _shown(name, perform, full, progress)
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed else 0


def _shown(
    name: str, perform: Callable[[_Section], _Count], full: bool, progress: Progress
) -> _Count:
    started = time.monotonic()
    section = _Section(name, full)
    count = perform(section)
    seconds = time.monotonic() - started
    progress.clear()
    line = f"{name:<10} {count.passed:>5} passed {count.failed:>4} failed {seconds:>8.1f} s"
    print(line, flush=True)
    if count.failed:
        lines = section.log.read_text(errors="replace").splitlines()
        print(*(f"  {line}" for line in lines[-_SHOWN_OF_LOG:]), sep="\n", flush=True)
        print(f"  all of it: {section.log.relative_to(paths.ROOT)}", flush=True)
    return count


def _files(*patterns: str) -> list[str]:
    """Files of the kit, known to git or about to be; programs of the corpus keep their own style."""
    words = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    names = git(*words, *patterns).decode().split("\0")
    names = [name for name in names if name and (paths.ROOT / name).is_file()]
    return [name for name in names if not name.startswith("grader/corpus/")]


def _cores() -> int:
    return len(os.sched_getaffinity(0))
