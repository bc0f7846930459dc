"""The model of a trace: what it reads, how it refuses, and that the schema says the same."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from sockwork import paths, trace
from sockwork.facts import Host, Status
from sockwork.harness import Bed
from sockwork.trace import (
    Argument,
    Call,
    Moved,
    Note,
    Packet,
    Place,
    ProcessEvent,
    Rule,
    Socket,
    State,
    Step,
    Trace,
    TraceError,
)
from toys import Perform

SCHEMA = json.loads(trace.SCHEMA.read_text())
STORIES = sorted((Path(__file__).parent / "figure").glob("*.jsonl"))
LINES = [line for path in STORIES for line in path.read_bytes().splitlines()]
CALL = {
    "run": 1,
    "pid": 7,
    "tid": 8,
    "name": "recvfrom",
    "args": [{"name": "fd", "value": 5}, {"name": "fds", "value": [{"fd": 3}]}],
    "result": 2,
    "error": None,
    "ended": 12,
    "fd": 5,
    "socket": {"inode": 9, "transport": "tcp", "local": ["192.0.2.1", 7000], "remote": None},
    "accepted": None,
    "bytes": {"size": 2, "head": "aGk="},
    "at": {"file": "a.cpp", "line": 71, "function": "serve"},
    "perturbed": "capped at 2",
}


def line(kind: str, body: Any, **fields: Any) -> bytes:
    record = {"n": 1, "time": 10, "kind": kind, "source": "observed", kind: body, **fields}
    return json.dumps(record).encode() + b"\n"


def one(kind: str, body: Any, **fields: Any) -> trace.Record:
    [record] = Trace.parse(line(kind, body, **fields)).records
    return record


def test_a_call_has_the_fields_of_the_format() -> None:
    call = one("call", CALL)
    assert isinstance(call, Call)
    assert (call.n, call.time, call.observed, call.returned) == (1, 10, True, True)
    assert call.args[0] == Argument("fd", 5) and call.argument("fds")[0]["fd"] == 3
    assert call.socket == Socket(9, "tcp", ("192.0.2.1", 7000), None)
    assert call.bytes == Moved(2, b"hi") and call.at == Place("a.cpp", 71, "serve")
    assert call.at.text == "a.cpp:71" and call.perturbed == "capped at 2"
    waiting = one("call", CALL | {"result": None, "ended": None, "socket": None})
    assert isinstance(waiting, Call) and not waiting.returned


def test_the_other_kinds_have_theirs() -> None:
    state = {"host": "target", "local": ["a", 1], "remote": ["b", 2], "from": None}
    made = one("state", {**state, "to": "CLOSE_WAIT", "because": "packet 12"}, source="inferred")
    assert isinstance(made, State) and not made.observed
    assert (made.to, made.packet) == ("CLOSE_WAIT", 12)
    ended = one("process", {"run": 1, "pid": 7, "status": {"kind": "signal", "signal": "SIGPIPE"}})
    assert isinstance(ended, ProcessEvent) and ended.status == Status("signal", 0, "SIGPIPE")
    rule = one("rule", {"rule": 3, "event": "released"})
    assert isinstance(rule, Rule) and (rule.rule, rule.event) == (3, "released")
    step = one("step", {"text": "peer: sends", "data": {"a": [1]}})
    assert isinstance(step, Step) and step.data["a"] == (1,)


def test_the_first_line_tells_of_the_testbed() -> None:
    made = Trace.parse(STORIES[0].read_bytes())
    assert made.tier == "T2" and set(made.hosts) == {"target", "peer"}
    assert made.hosts["target"] == Host("target", "192.0.2.1", "2001:db8::1", "02:00:00:00:00:01")
    assert isinstance(made.records[0], Note)
    assert Trace.parse(b"") == Trace(())


def test_a_packet_knows_its_end_and_whether_it_was_lost() -> None:
    lost = [packet for packet in Trace.parse(b"\n".join(LINES)).of(Packet) if packet.lost]
    assert [(packet.fate, packet.rule, packet.end) for packet in lost] == [("dropped", 1, 1)]


def test_records_are_in_the_order_of_time() -> None:
    text = line("step", {"text": "late"}, time=20) + line("step", {"text": "early"}, time=10)
    assert [step.text for step in Trace.parse(text).of(Step)] == ["early", "late"]


def test_nothing_can_be_changed() -> None:
    call = one("call", CALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.n = 2  # type: ignore[misc]
    step = one("step", {"text": "", "data": {"a": 1}})
    assert isinstance(step, Step)
    with pytest.raises(TypeError):
        step.data["a"] = 2  # type: ignore[index]


def test_fields_of_a_newer_kit_are_passed_over() -> None:
    assert one("call", {**CALL, "colour": "red"}, more=1) == one("call", CALL)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "line 2 of the trace: it is no JSON"),
        (b"\xff\xfe\xff", "line 2 of the trace: it is no JSON"),
        (b"[" * 100_000, "line 2 of the trace: it is no JSON"),
        (b"[]", "line 2 of the trace: it is no JSON object"),
        (line("dream", {}), "kind 'dream' is not known"),
        (line("step", {}), "text is missing or no text"),
        (line("step", {"text": 1}), "text is missing or no text"),
        (line("step", []), "step is missing or no object"),
        (line("step", {"text": ""}, source="guessed"), "source 'guessed' is not known"),
        (line("step", {"text": ""}, time=-1), "time is missing or no whole number"),
        (line("step", {"text": ""}, time=True), "time is missing or no whole number"),
        (line("step", {"text": ""}, time=10**30), "time is missing or no whole number"),
        (line("call", CALL | {"bytes": {"size": 1, "head": "?"}}), "head is not base64"),
        (line("call", CALL | {"args": [1]}), "an argument is not a name and a value"),
        (line("call", CALL | {"socket": {"inode": 1}}), "transport is missing or no text"),
        (line("state", {"host": "", "local": [1, 2]}), "local is missing or no address"),
        (line("rule", {"rule": "1", "event": ""}), "rule is missing or no whole number"),
    ],
)
def test_a_damaged_line_is_named(text: bytes, says: str) -> None:
    with pytest.raises(TraceError, match="^line 2 of the trace: ") as refused:
        Trace.parse(line("step", {"text": "good"}) + text)
    assert says in str(refused.value)


def test_another_version_is_refused() -> None:
    text = line("note", {"text": "trace", "data": {"version": 2, "hosts": {}, "tier": "T1"}})
    with pytest.raises(TraceError, match="version 2; this kit reads version 1"):
        Trace.parse(text)


def test_fifty_thousand_records_take_about_a_second() -> None:
    packets = [each for each in LINES if b'"kind": "packet"' in each]
    text = b"\n".join((packets * (50_000 // len(packets) + 1))[:50_000])
    start = time.process_time()
    assert len(Trace.parse(text).records) == 50_000
    assert time.process_time() - start < 3  # 0.9 s on the slowest machine tried


# --- the schema --------------------------------------------------------------------------------


def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


@pytest.mark.parametrize("path", STORIES, ids=[path.stem for path in STORIES])
def test_the_schema_holds_for_every_story(path: Path) -> None:
    schema = validator()
    for each in path.read_bytes().splitlines():
        schema.validate(json.loads(each))


def test_what_the_schema_refuses_the_model_refuses_and_the_other_way_round() -> None:
    """Each field of one record of each shape in turn is taken away, and made another type."""
    schema = validator()
    shapes: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in LINES:
        record = json.loads(each)
        shapes.setdefault((record["kind"], *sorted(record[record["kind"]])), record)
    refused = 0
    for record in shapes.values():
        for changed in damaged(record):
            holds = schema.is_valid(changed)
            try:
                Trace.parse(json.dumps(changed).encode())
                reads = True
            except TraceError:
                reads = False
            assert reads == holds, changed
            refused += not reads
    assert refused > 100


def damaged(record: dict[str, Any]) -> list[dict[str, Any]]:
    kind = record["kind"]
    made: list[dict[str, Any]] = []
    for name in ("n", "time", "kind", "source", kind):
        made.append({key: value for key, value in record.items() if key != name})
    if record[kind].get("text") == "trace":
        return made
    for name in record[kind]:
        rest = {key: value for key, value in record[kind].items() if key != name}
        made.append({**record, kind: rest})
        made += [{**record, kind: {**rest, name: other}} for other in (None, 1.5, -(2**70))]
    return made


def test_the_page_names_every_field_and_its_examples_are_valid() -> None:
    page = (paths.ROOT / "docs" / "trace.md").read_text()
    schema = validator()
    examples = re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for each in examples:
        schema.validate(json.loads(each))
    kinds = {json.loads(each)["kind"] for each in examples}
    assert kinds == {"note", "packet", "call", "state", "step"}
    explained = set(re.findall(r"`(\w+)`", page)) | set(
        re.findall(r"^## (\w+)$", page, re.MULTILINE)
    )
    assert fields(SCHEMA) <= explained


def fields(schema: Any) -> set[str]:
    """The names of all properties in the schema."""
    if not isinstance(schema, dict):
        return set()
    inner = [fields(value) for value in schema.values()]
    own = schema.get("properties", {}) if "type" in schema else {}
    return set(own).union(*inner)


def test_a_trace_of_the_testbed_is_one_of_version_1(perform: Perform) -> None:
    def echoes(bed: Bed) -> None:
        """Why."""
        connection = bed.connect(bed.start_server())
        connection.send(b"hello\n")
        connection.expect(b"hello\n")

    outcome = perform(echoes, keep=True)
    assert outcome.trace, outcome
    schema = validator()
    for each in outcome.trace.splitlines():
        schema.validate(json.loads(each))
    made = Trace.parse(outcome.trace)
    assert made.of(Step)
    assert made.of(ProcessEvent)
