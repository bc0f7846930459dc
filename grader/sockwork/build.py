"""Builds the programs of a submission with our own commands, away from everything else.

Nothing of the submission decides how it is compiled: no build file of its own is read, and no
environment reaches the compiler. Where bubblewrap works, the compiler sees the submission's files,
common's headers and /usr, all read-only, and has neither network nor home. Each program is built
twice: "checked" with sanitizers, and "load" as one would ship it. What was built is kept under the
hash of everything it was made from, so the same sources are compiled once.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sockwork import atomic, paths
from sockwork.model import Launch
from sockwork.submission import Source, Submission

MAX_LINE = 1000
MAX_LOG = 64 << 10
WALL_SECONDS = 90.0
UNUSED_SECONDS = 7 * 24 * 3600.0

# -U_FORTIFY_SOURCE: Ubuntu's compiler sets it by default, and with it an unchecked write() would
# be an error there and nowhere else.
_WARNINGS = ("-Wall", "-Wextra", "-Werror=return-type", "-Werror=unused-result")
_COMMON = (*_WARNINGS, "-U_FORTIFY_SOURCE", "-D_GLIBCXX_ASSERTIONS", "-pthread", "-g")
_CHECKED = ("-O1", "-fsanitize=address,undefined", "-fno-omit-frame-pointer")
_LOAD = ("-O2",)
_DIAGNOSTICS = ("-fdiagnostics-color=never", "-fmax-errors=20")

# _DEFAULT_SOURCE: under -std=c17 glibc hides POSIX otherwise (feature_test_macros(7)).
_COMPILERS = {"c++": ("g++", "-std=c++20"), "c": ("gcc", "-std=c17", "-D_DEFAULT_SOURCE")}

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8"}
# 86: no program of a lab exits with it, so it tells a sanitizer's report from an exit of its own.
_SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=86",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=86",
}

# CPU seconds, bytes of a file (in blocks of 512) and of memory (in KiB) of each compiler process.
# The program goes to standard output, which is a nameless file outside.
_SCRIPT = """
ulimit -c 0; ulimit -t 60; ulimit -f 524288; ulimit -v 4194304
"$@" -o "$TMPDIR/program" >&2 && exec cat "$TMPDIR/program"
"""


@dataclass(frozen=True)
class Built:
    """One program after the attempt to build it; without `launch` it failed, and `log` says why."""

    program: str
    launch: Launch | None
    log: str  # what the compiler said, at most 2 * MAX_LOG

    @property
    def first_error(self) -> tuple[str, ...]:
        """The first error as the compiler wrote it: its line, and the code with the mark below."""
        return _first_diagnostic(self.log, "error") or tuple(self.log.splitlines()[:3])

    @property
    def warnings(self) -> int:
        """How many warnings the compiler gave."""
        return len(re.findall(r"^[^\n]*: warning: ", self.log, re.MULTILINE))

    @property
    def first_warning(self) -> str:
        """The line of the first warning, or nothing."""
        return next(iter(_first_diagnostic(self.log, "warning")), "")


def build(
    submission: Submission,
    programs: Collection[str],
    *,
    optimised: Collection[str] = (),
    jobs: int = 2,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Built]:
    """Builds those of `programs` that the submission holds; of those in `optimised` the load
    variant, too."""
    wanted = [name for name in submission.programs if name in programs]
    variants = {name: [_CHECKED, _LOAD] if name in optimised else [_CHECKED] for name in wanted}
    built: dict[str, Built] = {}
    with _Compilers(jobs) as compilers:
        # All checked variants first: their errors are the ones shown.
        plans = {
            (name, variant): compilers.submit(submission, name, variant, progress)
            for variant in (_CHECKED, _LOAD)
            for name in wanted
            if submission.programs[name].sources and variant in variants[name]
        }
        for name in wanted:
            if submission.programs[name].run:
                launch = Launch(submission.programs[name].run, _laid_out(submission), ENVIRONMENT)
                built[name] = Built(name, launch, "")
            else:
                results = [plans[name, variant].result() for variant in variants[name]]
                built[name] = _joined(name, results)
    return built


# --- one program -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compiled:
    program: Path | None
    log: str


def _joined(name: str, results: list[_Compiled]) -> Built:
    for result in results:
        if result.program is None:
            return Built(name, None, result.log)
    folders = [result.program.parent for result in results if result.program]
    argv = (f"./{name}",)
    load = Launch(argv, folders[1], ENVIRONMENT) if len(folders) > 1 else None
    checked = Launch(argv, folders[0], {**ENVIRONMENT, **_SANITIZERS}, optimised=load)
    return Built(name, checked, results[0].log)


def _laid_out(submission: Submission) -> Path:
    """A folder of the cache with the submission's files, for programs that are run as they are."""
    digest = hashlib.sha256()
    _add_files(digest, submission.files)
    folder = paths.cache() / "build" / digest.hexdigest()[:16]
    if folder.is_dir():
        os.utime(folder)
        return folder
    with _scratch(folder.parent) as scratch:
        new = scratch / "files"
        _write_files(new, submission.files)
        with suppress(OSError):  # another run was quicker: its folder is the same
            new.rename(folder)
    return folder


def _first_diagnostic(log: str, kind: str) -> tuple[str, ...]:
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if re.search(rf"(: |^)(fatal )?{kind}: |undefined reference|multiple definition", line):
            shown = [line]
            for code in lines[number + 1 : number + 4]:
                if not re.match(r"\s*\d*\s*\|", code):
                    break
                shown.append(code)
            return tuple(shown)
    return ()


# --- compiling ---------------------------------------------------------------------------------


class _Compilers:
    """Runs compilers side by side; leaving the block early kills those that still run."""

    def __init__(self, jobs: int) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(max(1, jobs))
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> _Compilers:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)
        self._pool.shutdown(cancel_futures=True)

    def submit(
        self,
        submission: Submission,
        name: str,
        variant: tuple[str, ...],
        progress: Callable[[str], None],
    ) -> concurrent.futures.Future[_Compiled]:
        source = submission.programs[name]
        files = submission.files_of(name)
        return self._pool.submit(self._compile, name, source, files, variant, progress)

    def _compile(
        self,
        name: str,
        source: Source,
        files: Mapping[str, bytes],
        variant: tuple[str, ...],
        progress: Callable[[str], None],
    ) -> _Compiled:
        command = (*_COMPILERS[source.language], *_COMMON, *variant)
        folder = paths.cache() / "build" / _key(command, source, files)[:16]
        program, log = folder / name, folder.with_suffix(".log")
        if program.exists():
            with suppress(OSError):
                os.utime(folder)
                return _Compiled(program, log.read_text())
        progress(f"compiling {name}")
        _forget_unused(folder.parent)
        with _workshop(files, folder.parent) as workshop:
            text, ok = self._run(command, source, workshop, program, log)
        return _Compiled(program if ok else None, text)

    def _run(
        self,
        command: tuple[str, ...],
        source: Source,
        workshop: _Workshop,
        program: Path,
        log: Path,
    ) -> tuple[str, bool]:
        """Compiles into `program`; what the compiler said is kept beside it."""
        maps = [
            f"-ffile-prefix-map={workshop.sources}=.",
            f"-ffile-prefix-map={paths.HEADERS}=/include",
        ]
        argv = [*workshop.words, *command, *maps, *_DIAGNOSTICS, *_include(), *source.sources]
        try:
            with atomic.whole_file(program, 0o755) as output:
                text, ok = self._compiler(argv, workshop, output)
                if not ok:
                    raise _Failed(text)
        except _Failed as failure:
            return str(failure), False
        program.parent.chmod(0o755)
        atomic.write(log, text.encode())
        return text, True

    def _compiler(self, argv: list[str], workshop: _Workshop, output: int) -> tuple[str, bool]:
        process = self._start(argv, workshop, output)
        try:
            return _watch(process)
        finally:
            with self._lock:
                self._running.discard(process)

    def _start(self, argv: list[str], workshop: _Workshop, output: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise _Failed("stopped")
            process = subprocess.Popen(
                argv,
                cwd=workshop.folder,
                env={**ENVIRONMENT, "TMPDIR": workshop.temporary},
                pass_fds=workshop.descriptors,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._running.add(process)
            return process


class _Failed(Exception):
    """The compiler did not make a program; the text is what it said."""


def _watch(process: subprocess.Popen[bytes]) -> tuple[str, bool]:
    """Waits for the compiler; what it said, and whether it made a program."""
    late = threading.Timer(WALL_SECONDS, _kill, [process])
    late.start()
    try:
        assert process.stderr is not None
        said = _said(process.stderr)
        status = process.wait()
    finally:
        late.cancel()
        _kill(process)
        process.wait()
        if process.stderr:
            process.stderr.close()
    # The linker names a source "./NAME", as the debug information does.
    text = re.sub(r"^(\./)+", "", said.decode(errors="replace"), flags=re.MULTILINE)
    if status == -signal.SIGKILL or (status != 0 and not text):
        text += f"error: the compiler was stopped: its limit is {WALL_SECONDS:.0f} s, 4 GiB\n"
    return text, status == 0


def _said(stream: IO[bytes]) -> bytes:
    """What the compiler says. Templates can make it talk for megabytes: of a long line the beginning
    is kept, and of a long text the beginning and the errors."""
    kept = bytearray()
    begins, left_out = True, False  # whether a line begins; whether one was left out
    while piece := stream.readline(MAX_LINE):
        line = piece if len(piece) < MAX_LINE else piece + b"...\n"
        room = MAX_LOG * (2 if b"error: " in line else 1) - len(kept)
        if begins and len(line) <= room:
            kept += line
        left_out = left_out or (begins and len(line) > room)
        begins = piece.endswith(b"\n")
    return kept + b"(more was said; it is not kept)\n" if left_out else bytes(kept)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class _Workshop:
    """Where one compiler works: the words before its own, and where it finds what it needs."""

    words: tuple[str, ...]
    sources: str
    temporary: str
    folder: Path
    descriptors: tuple[int, ...] = ()


@contextmanager
def _workshop(files: Mapping[str, bytes], cache: Path) -> Iterator[_Workshop]:
    """A sandbox with the files in it; a folder of the cache where there can be no sandbox."""
    shell = ("sh", "-c", _SCRIPT, "sh")
    if not bubblewrap_works():
        with _scratch(cache) as scratch:
            _write_files(scratch / "src", files)
            (scratch / "tmp").mkdir()
            sources = scratch / "src"
            yield _Workshop(shell, str(sources), str(scratch / "tmp"), sources)
        return
    # The files go in through memory: a run that is killed leaves nothing of them behind.
    descriptors = [_memory_file(content) for content in files.values()]
    try:
        argv = [*_bubblewrap(), "--size", str(512 << 20), "--tmpfs", "/tmp", "--dir", "/src"]
        for name, descriptor in zip(files, descriptors):
            argv += ["--ro-bind-data", str(descriptor), f"/src/{name}"]
        for folder in _include()[1:]:
            argv += ["--ro-bind", folder, folder]
        words = (*argv, "--chdir", "/src", *shell)
        yield _Workshop(words, "/src", "/tmp", Path("/"), tuple(descriptors))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("source")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _include() -> tuple[str, ...]:
    return ("-isystem", str(paths.HEADERS)) if paths.HEADERS.is_dir() else ()


def _bubblewrap() -> list[str]:
    argv = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        if os.path.islink(name):
            argv += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            argv += ["--ro-bind", name, name]
    # Fedora's linker is found through /etc/alternatives. Of /dev a compiler needs only null.
    argv += ["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    return [*argv, "--dev-bind", "/dev/null", "/dev/null"]


@functools.cache
def bubblewrap_works() -> bool:
    """Whether compilers can be confined here."""
    if shutil.which("bwrap") is None:
        return False
    return (
        subprocess.run([*_bubblewrap(), "true"], capture_output=True, check=False).returncode == 0
    )


# --- the cache ---------------------------------------------------------------------------------


def _key(command: tuple[str, ...], source: Source, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for word in (*command, _compiler_version(command[0]), *source.sources):
        digest.update(word.encode() + b"\0")
    digest.update(_headers())
    _add_files(digest, files)
    return digest.hexdigest()


def _add_files(digest: hashlib._Hash, files: Mapping[str, bytes]) -> None:
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)


@functools.cache
def _compiler_version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


@functools.cache
def _headers() -> bytes:
    digest = hashlib.sha256()
    headers = [path for path in sorted(paths.HEADERS.rglob("*")) if path.is_file()]
    _add_files(digest, {str(path): path.read_bytes() for path in headers})
    return digest.digest()


def _forget_unused(cache: Path) -> None:
    with suppress(OSError):
        for entry in list(os.scandir(cache)):
            if time.time() - entry.stat().st_mtime > UNUSED_SECONDS or _is_abandoned(entry):
                shutil.rmtree(entry.path, ignore_errors=True)
                with suppress(OSError):
                    os.unlink(entry.path)


_SCRATCH = "scratch-"
_YOUNG_SECONDS = 60.0  # a folder's maker gets this long to lock it


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder that is gone afterwards; one that a kill leaves is forgotten by the next build."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache) as folder:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(descriptor)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    """Whether this is a scratch folder whose maker is gone, and its lock with it."""
    young = time.time() - entry.stat().st_mtime < _YOUNG_SECONDS
    if not entry.name.startswith(_SCRATCH) or young:
        return False
    descriptor = os.open(entry.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Lays the files out with fixed modes: another user runs what is built from them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    folder.mkdir(exist_ok=True)
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        inner.chmod(0o755)
