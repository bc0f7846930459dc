"""The documentation against the kit: every link, command, option, field and name in it is there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from sockwork import paths, results
from sockwork.cli import cli, lookup
from sockwork.harness import Bed, Connection, Run
from sockwork.labs import load_labs
from sockwork.model import Check, Lab

DOCS = paths.ROOT / "docs"
CONCEPTS = DOCS / "concepts"
LABS = load_labs(paths.LABS)
CHECKS = {check.id for lab in LABS for check in lab.checks}
LONGEST_CONCEPT = 120  # lines
_KEBAB = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")
_TOOL_FOLDERS = ("build", "node_modules")
# Words behind ./sockwork: each one space from the last, quoted or plain, up to an operator.
_COMMAND = re.compile(r"""\./sockwork((?: (?:'[^']*'|"[^"]*"|[^\s'"`#;|&<>()]+))*)""")


@dataclass(frozen=True)
class Page:
    """One Markdown file: its prose, and its fenced blocks as pairs of language and text."""

    path: Path
    prose: str
    blocks: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, path: Path) -> Page:
        text = path.read_text()
        fence = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
        blocks = tuple((match[2], match[3]) for match in fence.finditer(text))
        return cls(path, fence.sub("", text), blocks)

    @property
    def spans(self) -> list[str]:
        """What stands between backticks in the prose; a line may end inside."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @property
    def anchors(self) -> set[str]:
        """The fragments that a code host gives to the headings."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def markdown() -> list[Path]:
    """Every Markdown file of the kit, nothing that tools left."""
    inside = [path.relative_to(paths.ROOT) for path in sorted(paths.ROOT.rglob("*.md"))]
    return [
        paths.ROOT / path
        for path in inside
        if not any(part.startswith(".") or part in _TOOL_FOLDERS for part in path.parts)
    ]


def named(found: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(paths.ROOT))) for path in found]


ALL = named(markdown())
PAGES = named(sorted(DOCS.rglob("*.md")))
LAB_NUMBERS = [pytest.param(lab, id=lab.id) for lab in LABS]


# --- links -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", Page.read(path).prose):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, fragment = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not fragment or fragment in Page.read(target).anchors, link


def test_the_index_leads_to_every_page() -> None:
    links = re.findall(r"\]\(([^)\s#]+)", (DOCS / "README.md").read_text())
    reached = {(DOCS / link).resolve() for link in links}
    assert set(DOCS.rglob("*.md")) - reached == {DOCS / "README.md"}
    assert {lab.folder / "README.md" for lab in LABS} <= reached


# --- concepts ----------------------------------------------------------------------------------


def test_every_concept_has_a_page_and_every_page_is_used() -> None:
    used = {check.concept for lab in LABS for check in lab.checks}
    assert {page.stem for page in CONCEPTS.glob("*.md")} == used


@pytest.mark.parametrize("path", named(sorted(CONCEPTS.glob("*.md"))))
def test_a_concept_page_lists_the_checks_about_it(path: Path) -> None:
    listed = Page.read(path).prose.partition("\n## Checks about this\n")[2]
    lines = {
        int(number): re.findall(r"`([^`]+)`", line)
        for number, line in re.findall(r"^- Lab (\d\d): ((?:.+\n?(?!- ))+)", listed, re.MULTILINE)
    }
    about = {lab.number: [check.id for check in about_it(lab, path.stem)] for lab in LABS}
    assert lines == {number: ids for number, ids in about.items() if ids}
    assert len(path.read_text().splitlines()) <= LONGEST_CONCEPT


def about_it(lab: Lab, concept: str) -> list[Check]:
    return [check for check in lab.checks if check.concept == concept]


# --- names -------------------------------------------------------------------------------------


def known_names() -> set[str]:
    """Names with a hyphen that a text may use as they stand."""
    folders = [*(paths.ROOT / "grader" / "corpus").glob("*/*"), *(lab.folder for lab in LABS)]
    names = CHECKS | {check.concept for lab in LABS for check in lab.checks}
    names |= {lab.name for lab in LABS} | {folder.name for folder in folders}
    sources = [*paths.ROOT.glob("grader/sockwork/**/*.py"), *paths.LABS.glob("*/checks/*.py")]
    for source in sources:  # the reason words
        names |= set(re.findall(rf'"({_KEBAB.pattern})"', source.read_text()))
    return names | set((paths.ROOT / "packages.txt").read_text().split())


@pytest.mark.parametrize("path", PAGES)
def test_every_name_with_a_hyphen_is_known(path: Path) -> None:
    names = {span for span in Page.read(path).spans if _KEBAB.fullmatch(span)}
    assert names - known_names() == set()


@pytest.mark.parametrize("lab", LAB_NUMBERS)
def test_every_check_in_a_handout_is_one_of_the_lab(lab: Lab) -> None:
    ids = set(in_check_columns((lab.folder / "README.md").read_text()))
    assert ids
    assert ids - {check.id for check in lab.checks} == set()


def in_check_columns(text: str) -> Iterator[str]:
    """The code spans in the columns of tables whose heading speaks of checks."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        heading, _, *rows = [line.strip("|").split("|") for line in table.splitlines()]
        for column, title in enumerate(heading):
            if "check" in title.lower():
                for row in rows:
                    yield from re.findall(r"`([^`]+)`", row[column])


# --- commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ALL)
def test_every_command_line_is_understood(path: Path) -> None:
    page = Page.read(path)
    text = "\n".join([*(block for _, block in page.blocks), *page.spans])
    for words in _COMMAND.findall(text.replace("\\\n ", "")):
        understand(shlex.split(words))


def understand(words: list[str]) -> None:
    """Reads a command line as the program does, and looks up what it names."""
    if not words or words[0].isupper() or any("[" in word for word in words):
        return  # a usage line
    if words[0].startswith("-"):
        assert set(words) <= {"--help", "-h", "--version"}
        return
    with click.Context(cli) as context:
        command = cli.get_command(context, words[0])
    assert command, words
    if "--help" in words[1:]:
        return
    given = command.make_context(words[0], words[1:]).params
    if given.get("lab"):
        [lab] = lookup.labs(given["lab"])
        lookup.checks(lab, given.get("checks", ()))
        assert not given.get("program") or lookup.program(lab, given["program"])
    assert not given.get("submission") or (paths.ROOT / given["submission"]).is_dir(), words
    assert set(given.get("names", ())) <= set(re.findall(r"[\w+]+", command.help or ""))


def test_the_reference_names_every_command_and_option() -> None:
    text = (DOCS / "command-line.md").read_text()
    modules = [path.stem for path in paths.ROOT.glob("grader/sockwork/cli/*.py")]
    with click.Context(cli) as context:
        for name in modules:
            command = cli.get_command(context, name)
            if not command:
                continue
            section = re.split(rf"^## {name}$", text, maxsplit=1, flags=re.MULTILINE)[1:]
            assert section, name
            mine = re.split(r"^## ", section[0], maxsplit=1, flags=re.MULTILINE)[0]
            options = {each.opts[0] for each in command.params if isinstance(each, click.Option)}
            assert set(re.findall(r"[`\[](--[\w-]+)", mine)) == options


# --- the other references ----------------------------------------------------------------------


def fields(schema: Any) -> Iterator[str]:
    """The names of all properties in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "type" in schema:
            yield from schema["properties"]
        for value in schema.values():
            yield from fields(value)


def test_the_results_page_names_every_field_and_its_example_is_valid() -> None:
    page = Page.read(DOCS / "results.md")
    schema = json.loads(results.SCHEMA.read_text())
    explained = {span.rpartition(".")[2] for span in page.spans}
    assert set(fields(schema)) - explained == {"build", "evidence"}  # only as build.log and so on
    [example] = [block for language, block in page.blocks if language == "json"]
    jsonschema.Draft202012Validator(schema).validate(json.loads(example))


def test_the_example_of_a_check_stands_in_a_lab() -> None:
    blocks = [text for language, text in Page.read(DOCS / "writing-a-check.md").blocks]
    sources = [path.read_text() for path in paths.LABS.glob("*/checks/test_*.py")]
    [example] = [block for block in blocks if block.startswith("@check(")]
    assert any(example in source for source in sources)


def test_every_verb_is_there() -> None:
    spans = " ".join(Page.read(DOCS / "writing-a-check.md").spans)
    for name, kind in (("bed", Bed), ("run", Run), ("connection", Connection)):
        verbs = re.findall(rf"\b{name}\.(\w+)", spans)
        assert verbs
        assert [verb for verb in verbs if not hasattr(kind, verb)] == []
