"""`sockwork test` counts what its tools say, and a tool that breaks is a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sockwork import paths
from sockwork.cli import doctor
from sockwork.cli.test import _Count, _Section

JUNIT = """<testsuite>
<testcase name="a"/><testcase name="b"/>
<testcase name="c"><failure message="no"/></testcase>
<testcase name="d"><error message="no"/></testcase>
<testcase name="e"><skipped/></testcase>
</testsuite>"""


@pytest.fixture
def section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Section:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return _Section("some", full=False)


def writes(section: _Section, text: str, status: int) -> list[str]:
    """A test runner that writes its report and ends with `status`."""
    code = "import sys; open(sys.argv[1], 'w').write(sys.argv[2]); sys.exit(int(sys.argv[3]))"
    return [sys.executable, "-c", code, str(section.report), text, str(status)]


def test_each_test_of_a_runner_counts_and_a_skipped_one_does_not(section: _Section) -> None:
    assert section.tests(*writes(section, JUNIT, 1)) == _Count(2, 2)


def test_a_runner_that_fails_without_a_failed_test_is_a_failure(section: _Section) -> None:
    passed = "<testsuite><testcase name='a'/></testsuite>"
    assert section.tests(*writes(section, passed, 0)) == _Count(1, 0)
    assert section.tests(*writes(section, passed, 1)) == _Count(1, 1)


def test_a_runner_without_a_report_is_a_failure(section: _Section) -> None:
    assert section.tests(sys.executable, "-c", "") == _Count(0, 1)


def test_a_tool_says_yes_or_no_and_its_words_are_kept(section: _Section) -> None:
    assert section.tool(sys.executable, "-c", "") == _Count(1, 0)
    assert section.tool(sys.executable, "-c", "exit('bad: here')") == _Count(0, 1)
    assert "bad: here" in section.log.read_text()


def test_the_apparmor_rule_is_a_profile_for_each_program_that_makes_namespaces() -> None:
    text = "\n".join(doctor.apparmor_rule("/my kit/sockwork-testbed"))
    for path in ("/my kit/sockwork-testbed", "/my kit/sockwork-enter", "bwrap"):
        assert f'{path}" flags=(unconfined) {{ userns, }}' in text
    assert text.endswith("sudo apparmor_parser -r /etc/apparmor.d/sockwork")
