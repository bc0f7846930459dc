"""Submissions are read within limits, as text, and without leaving their folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sockwork import submission
from sockwork.model import Lab, Program
from sockwork.submission import Source, SubmissionError, load

LAB = Lab(
    number=2,
    id="02-tcp-echo-server",
    name="tcp-echo-server",
    title="TCP echo server",
    summary="",
    stages=(),
    programs=tuple(
        Program(name, ("HOST", "PORT"), "server", "") for name in ("echo_server", "echo_client")
    ),
    folder=Path("labs/02-tcp-echo-server"),
    checks=(),
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / LAB.id).mkdir()
    return tmp_path / LAB.id


def refused(folder: Path) -> str:
    with pytest.raises(SubmissionError) as caught:
        load(folder, LAB)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("echo_server.cpp", Source("c++", sources=("echo_server.cpp",))),
        ("echo_server.cc", Source("c++", sources=("echo_server.cc",))),
        ("echo_server.c", Source("c", sources=("echo_server.c",))),
        ("echo_server.py", Source("", run=("python3", "echo_server.py"))),
        ("echo_server.js", Source("", run=("node", "echo_server.js"))),
    ],
)
def test_a_program_is_found_by_its_name(place: Path, name: str, source: Source) -> None:
    (place / name).write_text("text")
    found = load(place.parent, LAB)
    assert dict(found.programs) == {"echo_server": source}
    assert found.files == {name: b"text"}


@pytest.mark.parametrize("name", ["02-tcp-echo-server", "02", "2", "tcp-echo-server"])
def test_the_lab_folder_has_four_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "echo_server.c").write_text("")
    assert set(load(tmp_path, LAB).programs) == {"echo_server"}


def test_headers_in_folders_are_kept_and_what_is_not_the_students_is_not(place: Path) -> None:
    for name in ("net/util.h", "checks/test_1.py", "lab.toml", "README.md", ".git/x", "a/b/c/d/e"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("x")
    (place / "a.out").write_bytes(b"\x7fELF\0")
    assert set(load(place.parent, LAB).files) == {"net/util.h"}


def test_other_programs_sources_are_no_part_of_a_program(place: Path) -> None:
    for name in ("echo_server.cpp", "echo_client.cpp", "util.h"):
        (place / name).write_text("")
    assert set(load(place.parent, LAB).files_of("echo_server")) == {"echo_server.cpp", "util.h"}


def test_submission_toml_names_commands_and_sources(place: Path) -> None:
    (place / "submission.toml").write_text(
        '[programs.echo_server]\nrun = ["python3", "main.py", "--serve"]\n'
        '[programs.echo_client]\nsources = ["client.cpp", "net/io.cpp"]\n'
    )
    (place / "net").mkdir()
    (place / "net/io.cpp").write_text("")
    (place / "client.cpp").write_text("")
    assert dict(load(place.parent, LAB).programs) == {
        "echo_server": Source("", run=("python3", "main.py", "--serve")),
        "echo_client": Source("c++", sources=("client.cpp", "net/io.cpp")),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[programs", "submission.toml: "),
        ("x = 1", "only [programs.NAME] tables"),
        ("[programs.echo_sever]\nrun = ['a']", "has no program echo_sever"),
        ("[programs.echo_server]\nrun = []", "1 to 64 strings"),
        ("[programs.echo_server]\nrun = [1]", "strings that are not empty"),
        ("[programs.echo_server]\nrun = ['a']\nsources = ['b']", "either run"),
        ("[programs.echo_server]\nsources = ['../x.cpp']", "../x.cpp is not a C or C++ source"),
        ("[programs.echo_server]\nsources = ['-o.cpp']", "-o.cpp is not a C or C++ source"),
        ("[programs.echo_server]\nsources = ['a.c', 'b.cpp']", "cannot be mixed"),
    ],
)
def test_a_wrong_submission_toml_is_told_in_one_line(place: Path, text: str, told: str) -> None:
    for name in ("a.c", "b.cpp"):
        (place / name).write_text("")
    (place / "submission.toml").write_text(text)
    assert told in refused(place.parent)


def test_two_sources_for_one_program_are_refused(place: Path) -> None:
    for name in ("echo_server.c", "echo_server.py"):
        (place / name).write_text("")
    assert "more than once: echo_server.c, echo_server.py" in refused(place.parent)


def test_no_folder_is_told(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "nowhere")
    assert "holds no folder 02-tcp-echo-server" in refused(tmp_path)


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_binary(path: Path) -> None:
    path.write_bytes(b"int main(){}\0")


def make_large(path: Path) -> None:
    path.write_bytes(b" " * (submission.MAX_FILE + 1))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (make_link, "is a symbolic link"),
        (make_fifo, "is not a regular file"),
        (make_binary, "is not a text file"),
        (make_large, "is larger than 1 MiB"),
    ],
)
def test_what_is_no_source_is_refused(place: Path, make: Callable[[Path], None], told: str) -> None:
    make(place / "echo_server.cpp")
    assert told in refused(place.parent)


def test_links_are_not_followed(place: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key.h").write_text("secret")
    (place / "secret").symlink_to(tmp_path / "secret")
    (place / "key.h").symlink_to(tmp_path / "secret/key.h")
    assert load(tmp_path, LAB).files == {}


def test_the_lab_folder_itself_may_not_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / LAB.id).symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in refused(tmp_path)


@pytest.mark.parametrize("name", ["my server.cpp", "-o.c", "a\nb.cpp", "\x1b[2J.c", "ü.cpp"])
def test_strange_names_of_sources_are_refused_and_shown_harmless(place: Path, name: str) -> None:
    (place / name).write_text("")
    told = refused(place.parent)
    assert "is not usable" in told
    assert told.isprintable()


def test_numbers_and_sizes_have_limits(place: Path) -> None:
    for number in range(submission.MAX_FILES + 1):
        (place / f"{number}.h").write_text("")
    assert "more than 200 files" in refused(place.parent)
    for number in range(9):
        (place / f"{number}.h").write_bytes(b" " * submission.MAX_FILE)
    assert "more than 8 MiB" in refused(place.parent)


def test_the_walk_has_a_limit_of_its_own(place: Path) -> None:
    for number in range(submission.MAX_ENTRIES + 1):
        (place / f".{number}").touch()
    assert "more than 2000 names" in refused(place.parent)
