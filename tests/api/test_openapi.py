from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from activities.backends.memory_indexes import MemoryIndexStore
from api.errors import PATTERNS
from api.frames import COMMENT, Cursor, Frame
from api.index_waiting import IndexWaiting
from api.routes import messages
from api.socket import _METHODS
from api.task_feed import TaskFeed
from api.task_lines import Line
from goatherd.contracts.inference_tasks import Task
from tests.api.conftest import House, build, make_settings
from tests.api.fake_inference import FakeInference, given
from tests.api.index_house import FakeSearching, searched_by

SEED = 20_261_122
EXAMPLES = 8

OURS = ("application/problem+json", "ProblemDetails", "status")
SHAPES = {
    "v1": ("application/json", "OpenAIError", "error"),
    "models": ("application/json", "HuggingFaceError", "error_type"),
}
"""Of errors, by the first step of a path."""
MODELS = {
    "smollm2-135m-instruct": Task.CONVERSATIONAL,
    "all-minilm-l6-v2": Task.FEATURE_EXTRACTION,
    "piper-lessac": Task.TEXT_TO_SPEECH,
    "tiny-diffusion": Task.TEXT_TO_IMAGE,
    "whisper-tiny": Task.AUTOMATIC_SPEECH_RECOGNITION,
}
"""Those of the document's examples."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build(make_settings())[0].openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(references(document)):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for method, path, operation in operations(document):
        assert re.fullmatch(r"[a-z]+[A-Za-z]*", operation["operationId"]), path
        assert all(operation.get(key) for key in ("summary", "description", "tags")), (method, path)
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (method, path, parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"], (method, path, status)
            assert "x-request-id" in response["headers"], (method, path, status)


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and path != "/readyz":
                kind, model, key = SHAPES.get(path.split("/")[1], OURS)
                content = response["content"][kind]
                assert content["schema"]["$ref"].endswith(f"/{model}"), (method, path, status)
                assert content["example"][key]
                assert key != "status" or content["example"][key] == int(status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_post_takes_a_key_and_shows_bodies(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        if method == "post":
            names = [parameter["name"] for parameter in operation.get("parameters", [])]
            if path.split("/")[1] not in SHAPES:
                assert "Idempotency-Key" in names
            if "application/json" not in operation.get("requestBody", {}).get("content", {}):
                # A file, or nothing at all.
                continue
            body = operation["requestBody"]["content"]["application/json"]
            for one in body["schema"].get("anyOf", [body["schema"]]):
                schema = document["components"]["schemas"][one["$ref"].rpartition("/")[2]]
                # An array is one of what has its own schema.
                assert schema.get("type") == "array" or schema["additionalProperties"] is False
            assert body["examples"]


def test_every_pattern_has_a_sentence(document: dict[str, Any]) -> None:
    def patterns(node: Any) -> Iterator[str]:
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if isinstance(node, dict):
            yield from (node["pattern"],) if isinstance(node.get("pattern"), str) else ()
            yield from node.get("patternProperties", ())
        for child in children:
            yield from patterns(child)

    assert set(patterns(document["components"]["schemas"])) == PATTERNS.keys()


def test_the_events_and_the_websocket_are_described(document: dict[str, Any]) -> None:
    follow = document["paths"]["/chat/{session}/events"]["get"]
    post = document["paths"]["/chat/{session}/message"]["post"]
    for operation, status in ((follow, "200"), (post, "201")):
        items = operation["responses"][status]["content"]["text/event-stream"]["x-itemSchema"]["oneOf"]
        assert [one["$ref"].rpartition("/")[2] for one in items] == ["Event", "DeltaEvent", "PassingEvent"]
    assert follow["x-websocket"]["methods"].keys() == _METHODS.keys()
    pattern = follow["x-websocket"]["parameters"][0]["schema"]["pattern"]
    for cursor in ("0", "4:msg_01k9w2x6hj3v8m5r7t0q4n1b2c:120"):
        assert re.fullmatch(pattern, cursor)
        assert str(Cursor.parse(cursor)) == cursor
    given = {one["name"]: one["schema"] for one in follow["parameters"] if one["in"] != "path"}
    assert {name: one["anyOf"][0]["pattern"] for name, one in given.items()} == {
        "since": pattern,
        "last-event-id": pattern,
    }


def test_the_models_that_there_are_are_named(document: dict[str, Any]) -> None:
    for body in ("CreateSession", "PostMessageBody", "RegenerateBody"):
        model = document["components"]["schemas"][body]["properties"]["model"]
        assert model["examples"] == ["other", "tiny"]


def test_a_null_in_an_example_is_shown(document: dict[str, Any]) -> None:
    body = document["paths"]["/models"]["post"]["requestBody"]["content"]["application/json"]
    server = body["examples"]["a server that speaks OpenAI's API"]["value"]
    assert server["options"]["api_key"] is None


async def test_the_document_is_served(house: House, document: dict[str, Any]) -> None:
    served = (await house.http.get("/openapi.json")).json()
    assert served == document
    assert served["info"]["license"]["identifier"] == "Apache-2.0"


def by_design(check: str, answer: bytes) -> bool:
    """What a tester can't know: an ended session stays readable; a key counts for one body; which cursors
    go together, or exist; which messages a session has; which subtasks may depend on which; that a time is
    over; that who leaves `If-Match` out is told by a status of its own, and what a tag is; when a token is
    needed; where callbacks may go; that a number has 64 bits."""
    if check == "use_after_free":
        return True
    # A model's name may have slashes in it: what stands behind it may be its end.
    if check == "unsupported_method" and b'"error_type"' in answer:
        return True
    known = (
        b'"idempotency-key-reused"',
        b'"malformed-cursor"',
        b'"pointer":"/parent_id"',
        b'"dependency-cycle"',
        b"/depends_on/",
        b"Another subtask of the request has it too.",
        b"Has to be in the future.",
        b'"precondition-failed"',
        b'"pointer":"/lease_token"',
        b'"pointer":"/callback/url"',
        b"has more than 64 bits",
        # Which model does what, is in no schema; nor is what a task takes.
        b'"code":"wrong_task"',
        b'"code":"unsupported_parameter"',
        b'"error_type":"validation"',
        b'"param":"prompt',
        b'"param":"input',
        b'"param":"dimensions"',
        b'"param":"messages',
        b'"param":"size"',
        b'"param":"stream"',
        b'"param":"max_tokens"',
        b'"param":"stream_options"',
        b'"param":"timestamp_granularities"',
        b"The file is empty.",
        b'"model-not-found"',
        b'"wrong-task"',
        b'"pointer":"/inputs',
        b'"pointer":"/parameters',
        b'"pointer":"/stream"',
        # Of a job: these parameters are for a body that is a file.
        b'takes no parameters."}],"instance":"/inference/job"',
        # A job's model stands in the body or in the query.
        b'"pointer":"/model","detail":"Unknown',
        # What an index is made of goes together, and its documents and searches with that.
        b'"pointer":"/chunking"',
        b'"pointer":"/backend"',
        b'"pointer":"/lexical"',
        b'"pointer":"/dimensions"',
        b'"pointer":"/text"',
        b'"pointer":"/vector"',
        b'"pointer":"/documents/',
        b'"pointer":"/metadata/',
        b"The character NUL can't be kept.",
        b'"pointer":"/filter',
        b'"pointer":"/mode"',
        b'"pointer":"/weights"',
        b'"pointer":"/candidates"',
    )
    if b'"precondition-required"' in answer or b"No worker serves models" in answer:
        return True
    if b"There was no answer within" in answer:
        return True
    return check == "positive_data_acceptance" and any(part in answer for part in known)


@pytest.mark.filterwarnings("ignore:::schemathesis", "ignore:::jsonschema", "ignore:::hypothesis")
def test_a_property_based_tester_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_wait(*_: object) -> None:
        """Nobody makes the replies that are waited for."""

    async def no_work(*_: object) -> bool:
        """Nobody adds what a take would wait for."""
        return False

    async def short(*_: object) -> AsyncGenerator[Frame]:
        """A stream that goes on is not waited for."""
        yield COMMENT

    monkeypatch.setattr(messages.chat_streams, "wait_for_reply", no_wait)
    monkeypatch.setattr(TaskFeed, "follow", short)
    monkeypatch.setattr(Line, "wait", no_work)
    # Nobody takes documents in.
    monkeypatch.setattr(IndexWaiting, "_until", no_wait)
    config = SchemathesisConfig.from_dict({"generation": {"max-examples": EXAMPLES}, "seed": SEED})
    # The tester calls itself `testserver`.
    inference = FakeInference()
    for name, task in MODELS.items():
        inference.add(name, task)
    indexes = MemoryIndexStore()
    app = build(
        make_settings(allowed_hosts=["testserver"]),
        make_inference=lambda _: given(inference),
        indexes=indexes,
        make_searching=searched_by(FakeSearching(indexes)),
    )[0]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    # The same as /v1/chat/completions, which has more cases than any other.
    schema = schema.exclude(operation_id="chatWithModel")
    failures, cases = [], 0
    for event in engine.from_schema(schema).execute():
        assert not isinstance(event, events.FatalError | events.NonFatalError), event
        if not isinstance(event, events.ScenarioFinished):
            continue
        cases += len(event.recorder.cases)
        for case_id, checks in event.recorder.checks.items():
            for check in checks:
                if check.failure_info is None:
                    continue
                response = event.recorder.interactions[case_id].response
                answer = response.content if response is not None else b""
                if not by_design(check.name, answer):
                    failures.append(f"{check.failure_info.failure}\n{answer[:900]!r}")
    assert not failures, "\n\n".join(failures)
    assert cases > 200
