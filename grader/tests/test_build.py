"""Programs are really compiled, really confined, and compiled once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sockwork import build as builder
from sockwork import paths
from sockwork.build import Built, build, bubblewrap_works
from sockwork.model import Launch
from sockwork.submission import Source, Submission

HELLO = '#include <cstdio>\nint main() { std::puts("hello"); }\n'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["confined", "plain"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With bubblewrap and without: T0 machines have none."""
    if request.param == "plain":
        monkeypatch.setattr(builder, "bubblewrap_works", lambda: False)
    elif not bubblewrap_works():
        pytest.skip("bubblewrap does not work here")
    return str(request.param)


@pytest.fixture
def confined() -> None:
    if not bubblewrap_works():
        pytest.skip("bubblewrap does not work here")


def submission(name: str, text: str, **more: str) -> Submission:
    files = {name: text} | {key.replace("__", "."): value for key, value in more.items()}
    language = "c" if name.endswith(".c") else "c++"
    programs = {"program": Source(language, sources=(name,))}
    return Submission("test", programs, {key: text.encode() for key, text in files.items()})


def built(text: str, name: str = "program.cpp", **more: str) -> Built:
    return build(submission(name, text, **more), ["program"], optimised=["program"])["program"]


def run(launch: Launch | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert launch is not None
    return subprocess.run(
        [*launch.argv, *arguments],
        cwd=launch.directory,
        env=dict(launch.environment),
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_both_variants_run(either: str) -> None:
    each = built(HELLO)
    assert each.launch is not None and each.launch.optimised is not None
    assert run(each.launch).stdout == run(each.launch.optimised).stdout == "hello\n"
    assert each.log == "" and each.warnings == 0


def test_c_programs_have_posix(either: str) -> None:
    text = "#include <netdb.h>\nint main(void) { struct addrinfo a = {0}; return a.ai_flags; }\n"
    assert run(built(text, "program.c").launch).returncode == 0


def test_local_headers_and_commons_are_found(either: str) -> None:
    each = built(
        '#include "own.h"\n#include "sock/error.h"\nint main() { return kOwn; }\n',
        own__h="inline constexpr int kOwn = 3;\n",
    )
    assert each.launch, each.log
    assert run(each.launch).returncode == 3


@pytest.mark.parametrize(
    "line",
    [
        "int* p = new int[1]; delete[] p; return *p;",
        "int x = 2147483647; x += argc; return x;",
    ],
)
def test_the_checked_variant_reports_with_status_86_and_a_source_line(line: str) -> None:
    done = run(built(f"int main(int argc, char**) {{\n  (void)argc;\n  {line}\n}}\n").launch)
    assert done.returncode == 86
    assert "program.cpp:3" in done.stderr


def test_a_program_that_does_not_compile_shows_the_first_error_verbatim(either: str) -> None:
    each = built("int main() {\n  return x;\n}\n")
    assert each.launch is None
    assert each.first_error[0].startswith("program.cpp:2:10: error: ")
    assert each.first_error[1] == "    2 |   return x;"
    assert each.first_error[2].strip() == "|          ^"


def test_a_program_that_does_not_link_shows_what_is_missing() -> None:
    each = built("int f();\nint main() { return f(); }\n")
    assert each.launch is None
    assert "undefined reference to `f()'" in each.first_error[0]


def test_a_missing_return_is_an_error_and_a_warning_is_not() -> None:
    assert built("int f() {}\nint main() { return f(); }\n").launch is None
    each = built("int main() { int unused; }\n")
    assert each.launch is not None
    assert each.warnings == 1 and "program.cpp:1:18: warning: " in each.first_warning
    assert built("int main() { int unused; }\n").warnings == 1  # from the cache, too


def test_an_unchanged_program_is_not_compiled_again() -> None:
    told: list[str] = []
    for _ in range(2):
        build(submission("program.cpp", HELLO), ["program"], progress=told.append)
    assert told == ["compiling program"]
    for _ in range(2):
        build(
            submission("program.cpp", HELLO),
            ["program"],
            optimised=["program"],
            progress=told.append,
        )
    assert told == ["compiling program"] * 2  # the load variant is one more


@pytest.mark.parametrize("change", ["source", "header", "common", "flags"])
def test_whatever_a_program_is_made_from_makes_it_new(
    change: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def folder(text: str, header: str) -> Path:
        launch = built(text, own__h=header).launch
        assert launch is not None
        return launch.directory

    headers = tmp_path / "include"
    headers.mkdir()
    (headers / "kit.h").write_text("")
    monkeypatch.setattr(paths, "HEADERS", headers)
    builder._headers.cache_clear()
    before = folder(HELLO, "")
    if change == "common":
        (headers / "kit.h").write_text("// new")
        builder._headers.cache_clear()
    if change == "flags":
        monkeypatch.setattr(builder, "_CHECKED", (*builder._CHECKED, "-DNEW"))
    after = folder(
        HELLO + "//" if change == "source" else HELLO, "//" if change == "header" else ""
    )
    builder._headers.cache_clear()
    assert before != after


def test_what_was_built_is_readable_for_another_user(either: str) -> None:
    old = os.umask(0o077)
    try:
        launch = built(HELLO).launch
    finally:
        os.umask(old)
    assert launch is not None
    assert launch.directory.stat().st_mode & 0o777 == 0o755
    assert (launch.directory / "program").stat().st_mode & 0o777 == 0o755


def test_programs_that_are_not_compiled_run_in_a_copy_of_their_files() -> None:
    files = {"a.py": b"import b", "b.py": b"print('b')"}
    programs = {"program": Source("", run=("python3", "a.py"))}
    each = build(Submission("s", programs, files), ["program"])["program"]
    assert run(each.launch).stdout == "b\n"


def test_what_was_not_used_for_a_week_is_forgotten(tmp_path: Path) -> None:
    cache = tmp_path / "cache/sockwork/build"
    old, used = (built(f"{HELLO}// {n}").launch for n in (1, 2))
    assert old is not None and used is not None
    for path in [*cache.iterdir()]:
        os.utime(path, (0, 0))
    built(HELLO + "// 2")  # from the cache, and so in use
    built(HELLO + "// 3")
    assert not old.directory.exists()
    assert run(used).stdout == "hello\n"


def test_programs_that_are_not_wanted_or_not_there_are_left_out() -> None:
    assert build(submission("program.cpp", HELLO), ["other"]) == {}


# --- submissions that mean harm -----------------------------------------------------------------


@pytest.mark.usefixtures("confined")
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "/dev/zero", "/dev/tty", "/proc/self/environ", str(paths.ROOT / "README.md")],
)
def test_a_compiler_sees_no_file_of_the_host(path: str) -> None:
    each = built(f'#include "{path}"\nint main() {{}}\n')
    assert each.launch is None
    assert "No such file or directory" in each.first_error[0]


@pytest.mark.usefixtures("confined")
def test_incbin_gets_nothing_either() -> None:
    each = built('asm(".incbin \\"/etc/passwd\\"");\nint main() {}\n')
    assert each.launch is None and "root:" not in each.log


def bomb_includes() -> str:
    return "#include __FILE__\n#include __FILE__\nint main() {}\n"


def bomb_object() -> str:
    return "char a[1L << 40] = {1};\nint main() { return a[0]; }\n"


def bomb_templates() -> str:
    return (
        "template <int N> struct A { static constexpr int v = A<N - 1>::v + A<N - 2>::v; };\n"
        "int main() { return A<1000000>::v; }\n"
    )


@pytest.mark.parametrize("bomb", [bomb_includes, bomb_object, bomb_templates])
def test_bombs_for_the_compiler_end_with_a_message(either: str, bomb: Callable[[], str]) -> None:
    each = built(bomb())
    assert each.launch is None
    assert each.first_error and len(each.log) < 2 * builder.MAX_LOG


def test_a_flood_of_warnings_is_cut_and_the_program_still_built(either: str) -> None:
    text = "".join(f"static int f{n}() {{ return 0; }}\n" for n in range(2000))
    each = built(text + "int main() {}\n")
    assert each.launch is not None
    assert builder.MAX_LOG - 4096 <= len(each.log.encode()) < builder.MAX_LOG + 4096
    assert each.log.endswith("(more was said; it is not kept)\n")


@pytest.mark.parametrize(
    "before",
    [
        "".join(f"static int f{n}() {{ return 0; }}\n" for n in range(2000)),  # many lines
        f"#warning {'long ' * 500_000}\n",  # one line of 2.5 MB
    ],
)
def test_the_first_error_is_found_behind_megabytes(before: str) -> None:
    each = built(before + "int main() { return nothing; }\n")
    assert "error: 'nothing' was not declared" in each.first_error[0].replace("‘", "'").replace(
        "’", "'"
    )
    assert len(each.log) < 2 * builder.MAX_LOG


def test_a_compiler_that_takes_too_long_is_stopped(
    either: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "WALL_SECONDS", 0.5)
    loop = "constexpr long f() { long s = 0; for (long i = 0; i < 900000000; ++i) s += i; return s; }\n"
    monkeypatch.setattr(builder, "_COMMON", (*builder._COMMON, "-fconstexpr-loop-limit=1000000000", "-fconstexpr-ops-limit=100000000000"))  # fmt: skip
    started = time.monotonic()
    each = built(loop + "static_assert(f() != 1);\nint main() {}\n")
    assert each.launch is None and time.monotonic() - started < 10
    assert "error: the compiler was stopped" in each.first_error[0]


def test_the_environment_of_the_caller_does_not_reach_the_compiler(
    either: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "evil.h").write_text("#error reached\n")
    for name in ("CPATH", "CPLUS_INCLUDE_PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    each = built('#if __has_include("evil.h")\n#error reached\n#endif\nint main() {}\n')
    assert each.launch is not None, each.log


# --- whole or not at all -------------------------------------------------------------------------

_ENDLESS = """
    import sys
    sys.path.insert(0, {grader!r})
    from sockwork import build as b
    from sockwork.submission import Source, Submission
    loop = "constexpr long f() {{ long s = 0; for (long i = 0; i < 900000000; ++i) s += i; return s; }}"
    text = loop + "static_assert(f() != 1); int main() {{}}"
    b._COMMON += ("-fconstexpr-loop-limit=1000000000", "-fconstexpr-ops-limit=100000000000")
    s = Submission("s", {{"program": Source("c++", sources=("p.cpp",))}}, {{"p.cpp": text.encode()}})
    b.build(s, ["program"], progress=lambda text: print(text, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_builder_that_is_stopped_leaves_no_program_and_no_compiler(
    number: signal.Signals, tmp_path: Path, confined: None
) -> None:
    script = textwrap.dedent(_ENDLESS.format(grader=str(paths.ROOT / "grader")))
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"compiling program")
        compilers = _until(lambda: _compilers_below(process.pid))
        process.send_signal(number)
        process.wait(20)
    assert _until(lambda: not any(_alive(pid) for pid in compilers))
    cache = tmp_path / "cache/sockwork/build"
    assert [path for path in cache.glob("[!s]*/*") if path.is_file()] == []
    assert number != signal.SIGINT or not list(cache.glob("scratch-*"))


def _compilers_below(pid: int) -> list[int]:
    """The compilers proper that the process started, through however many others."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "cc1plus\n":
                found.append(int(child))
            found += _compilers_below(int(child))
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(question: Callable[[], Any]) -> Any:
    """Asks until the answer is true, at most 10 s."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with suppress(OSError):  # a process looked at has just ended
            if answer := question():
                return answer
        os.sched_yield()
    pytest.fail("it did not come to be within 10 s")
