"""Reads the lab folders: lab.toml and the checks beside it, and refuses what is not consistent."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from sockwork.harness.declare import check_of
from sockwork.model import Check, Lab, Program

CORE_POINTS = 100
HINTS = 3
NEEDS = {"link", "sandbox", "names", "owner", "inet6", "uid", "ptrace", "cgroup"}
ROLES = {"server", "client", "tool"}

_FOLDER = re.compile(r"(?P<number>\d\d)-(?P<name>[a-z0-9-]+)")


class LabError(Exception):
    """A lab is not consistent; the text names the file and what is wrong there."""


def load_labs(root: Path) -> list[Lab]:
    """All labs below the folder `root`, by number."""
    return [load_lab(path.parent) for path in sorted(root.glob("*/lab.toml"))]


def load_lab(folder: Path) -> Lab:
    """The lab in one folder NN-name."""
    table = _read(folder / "lab.toml")
    lab = _lab(folder, table, _checks(folder))
    for problem in _problems(lab):
        raise LabError(f"{lab.id}: {problem}")
    return lab


# --- lab.toml ----------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LabError(f"{path}: {error}") from error


def _lab(folder: Path, table: Mapping[str, Any], checks: tuple[Check, ...]) -> Lab:
    where = folder / "lab.toml"
    known = {"number", "name", "title", "summary", "stages", "programs"}
    if set(table) != known:
        raise LabError(f"{where}: the keys are {', '.join(sorted(known))}")
    return Lab(
        number=_typed(where, table, "number", int),
        id=folder.name,
        name=_typed(where, table, "name", str),
        title=_typed(where, table, "title", str),
        summary=_typed(where, table, "summary", str),
        stages=tuple(_typed(where, table, "stages", list)),
        programs=tuple(_program(where, entry) for entry in _typed(where, table, "programs", list)),
        folder=folder,
        checks=checks,
    )


def _typed(where: Path, table: Mapping[str, Any], key: str, kind: type) -> Any:
    value = table.get(key)
    if not isinstance(value, kind):
        raise LabError(f"{where}: {key} is missing or is not of type {kind.__name__}")
    return value


def _program(where: Path, entry: Mapping[str, Any]) -> Program:
    role = _typed(where, entry, "role", str)
    if role not in ROLES:
        raise LabError(f"{where}: a program's role is one of {', '.join(sorted(ROLES))}")
    name, arguments, summary = (
        _typed(where, entry, key, str) for key in ("name", "arguments", "summary")
    )
    return Program(name, tuple(arguments.split()), role, summary)


# --- checks ------------------------------------------------------------------------------------


def _checks(folder: Path) -> tuple[Check, ...]:
    files = sorted((folder / "checks").glob("test_*.py"))
    with _importing_from(folder / "checks"):
        return tuple(check for file in files for check in _checks_of(folder, file))


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Lets checks import modules beside them, under names that no other lab will see."""
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder and "." not in name:
                del sys.modules[name]


def _checks_of(folder: Path, file: Path) -> list[Check]:
    """The checks of one file, in the order in which they stand there."""
    module = _imported(f"sockwork_checks.{folder.name}.{file.stem}", file)
    names = [node.name for node in ast.parse(file.read_text()).body if _is_test(node)]
    for name in names:
        if names.count(name) > 1:
            raise LabError(f"{file}: {name} stands there twice")
    checks = [(name, check_of(getattr(module, name))) for name in names]
    for name, check in checks:
        if check is None:
            raise LabError(f"{file}: {name} has no @check")
    return [check for _, check in checks if check]


def _is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


def _imported(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LabError(f"{file}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LabError(f"{file}: {type(error).__name__}: {error}") from error
    return module


# --- consistency -------------------------------------------------------------------------------


def _problems(lab: Lab) -> Iterator[str]:
    name = _FOLDER.fullmatch(lab.id)
    if not name or (int(name["number"]), name["name"]) != (lab.number, lab.name):
        yield f"the folder is not named {lab.number:02}-{lab.name}, as lab.toml says"
    yield from _duplicates(lab)
    before: set[str] = set()
    for check in lab.checks:
        for problem in _problems_of(check, lab, before):
            yield f"check {check.id}: {problem}"
        before.add(check.id)
    core = sum(check.points for check in lab.checks if check.level == "core")
    if abs(core - CORE_POINTS) > 1e-6:
        yield f"the core checks make {core:g} points, not {CORE_POINTS}"


def _duplicates(lab: Lab) -> Iterator[str]:
    ids = [check.id for check in lab.checks]
    for repeated in sorted({one for one in ids if ids.count(one) > 1}):
        yield f"two checks are named {repeated}"


def _problems_of(check: Check, lab: Lab, before: set[str]) -> Iterator[str]:
    if check.stage not in lab.stages:
        yield f"lab.toml has no stage {check.stage!r}"
    if check.program not in [program.name for program in lab.programs]:
        yield f"lab.toml has no program {check.program!r}"
    for other in sorted(set(check.after) - before):
        yield f"its prerequisite {other!r} is not a check before it"
    for word in sorted(set(check.needs) - NEEDS):
        yield f"there is no capability {word!r}"
    if len(check.hints) != HINTS or not all(hint.strip() for hint in check.hints):
        yield f"it needs {HINTS} hints"
    if not check.why:
        yield "it has no docstring that says why it is there"
    if check.points <= 0:
        yield "it has no points"
    if "target" not in check.hosts or "peer" not in check.hosts:
        yield "the hosts target and peer are always there"
