from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from collections.abc import Callable

import pydantic
import pytest

from goatherd.telemetry import bind, bound, get_logger
from tests.telemetry.conftest import Captured

Configure = Callable[..., Captured]

log = get_logger("goatherd.test")


def test_a_line_is_json_with_the_agreed_fields_when_stderr_is_no_terminal(configured: Configure) -> None:
    logs = configured()
    log.info("session started", posts=3)
    (line,) = logs.lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "level": "info",
        "logger": "goatherd.test",
        "component": "api",
        "event": "session started",
        "posts": 3,
    }


def test_a_terminal_gets_console_lines(configured: Configure) -> None:
    logs = configured(tty=True)
    log.warning("careful")
    assert "careful" in logs.getvalue()
    assert "\x1b[" in logs.getvalue()


def test_the_format_can_be_forced(configured: Configure) -> None:
    logs = configured(log_format="console")
    log.info("plain")
    assert "\x1b[" not in logs.getvalue()
    assert not logs.getvalue().startswith("{")
    logs = configured(log_format="json", tty=True)
    log.info("plain")
    assert logs.line("plain")


def test_the_level_holds_for_both_kinds_of_logger(configured: Configure) -> None:
    logs = configured(log_level="warning")
    log.info("no")
    logging.getLogger("some.library").info("no")
    log.warning("yes")
    logging.getLogger("some.library").warning("yes too")
    assert [line["event"] for line in logs.lines] == ["yes", "yes too"]


def test_a_library_that_logs_each_command_is_kept_quiet_even_at_debug(configured: Configure) -> None:
    logs = configured(log_level="debug")
    logging.getLogger("pymongo.command").debug("insert with a text")
    logging.getLogger("httpx").info("HTTP Request: GET …")
    assert logs.lines == []


def test_standard_records_share_fields_context_and_extras(configured: Configure) -> None:
    logs = configured()
    with bound(request_id="req_1"):
        logging.getLogger("some.library").info("connected to %s", "there", extra={"attempt": 2})
    line = logs.line("connected to there")
    assert (line["logger"], line["component"]) == ("some.library", "api")
    assert (line["request_id"], line["attempt"]) == ("req_1", 2)


def test_uvicorn_goes_the_same_way_and_its_access_log_nowhere(configured: Configure) -> None:
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    logs = configured()
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[1mStarted"})
    logging.getLogger("uvicorn.access").info("GET /")
    (line,) = logs.lines
    assert line["event"] == "Started"
    assert "color_message" not in line


def test_temporal_records_are_flattened(configured: Configure) -> None:
    logs = configured()
    logging.getLogger("temporalio.workflow").info(
        "posted",
        extra={
            "temporal_workflow": {
                "workflow_id": "chat_1",
                "run_id": "r",
                "workflow_type": "ChatSession",
                "attempt": 1,
                "namespace": "default",
                "task_queue": "q",
                "update_id": "u",
                "update_name": "PostMessage",
            }
        },
    )
    logging.getLogger("temporalio.activity").info(
        "wrote",
        extra={
            "temporal_activity": {
                "workflow_id": "other",
                "workflow_run_id": "r",
                "workflow_type": None,
                "activity_type": "write_reply",
                "activity_id": "7",
                "attempt": 2,
            }
        },
    )
    posted, wrote = logs.lines
    assert "temporal_workflow" not in posted
    assert (posted["workflow_id"], posted["run_id"], posted["session"]) == ("chat_1", "r", "chat_1")
    assert (posted["workflow_type"], posted["update"]) == ("ChatSession", "PostMessage")
    assert "temporal_activity" not in wrote
    assert (wrote["workflow_id"], wrote["run_id"], wrote["activity"]) == ("other", "r", "write_reply")
    assert (wrote["activity_id"], wrote["attempt"]) == ("7", 2)
    assert "session" not in wrote
    assert "workflow_type" not in wrote


def test_an_exception_is_a_structured_traceback_without_local_variables(configured: Configure) -> None:
    logs = configured()

    def fail() -> None:
        words = "a private message"
        raise RuntimeError(f"{len(words)} characters")

    try:
        fail()
    except RuntimeError:
        log.exception("it failed")
        logging.getLogger("some.library").exception("it failed there")
    for line in logs.lines:
        (trace,) = line["exception"]
        assert (trace["exc_type"], trace["exc_value"]) == ("RuntimeError", "17 characters")
        assert trace["frames"][-1]["name"] == "fail"
    assert "private" not in logs.getvalue()


def test_the_console_shows_an_exception_without_local_variables(configured: Configure) -> None:
    logs = configured(log_format="console")
    try:
        words = "a private message"
        raise RuntimeError(f"{len(words)} characters")
    except RuntimeError:
        log.exception("it failed")
    assert "RuntimeError: 17 characters" in logs.getvalue()
    assert "a private message" not in logs.getvalue().replace('words = "a private message"', "")


def test_texts_and_secrets_are_left_out(configured: Configure) -> None:
    logs = configured()
    log.info(
        "post", content="hi", body={"messages": [{"text": "hi", "role": "user"}]}, tokens=12, max_tokens=5
    )
    log.info("call", authorization="Bearer abc", headers={"X-Api-Key": "k", "cookie": "c"}, lease_token="t")
    log.info("connect", uri="mongodb://ann:pa55@db:27017/?x=1", note="sent Authorization: Bearer abcdefgh123")
    post, call, connect = logs.lines
    assert post["content"] == "[redacted]"
    assert post["body"] == {"messages": [{"text": "[redacted]", "role": "user"}]}
    assert (post["tokens"], post["max_tokens"]) == (12, 5)
    assert call["authorization"] == call["lease_token"] == "[redacted]"
    assert call["headers"] == {"X-Api-Key": "[redacted]", "cookie": "[redacted]"}
    assert connect["uri"] == "mongodb://***@db:27017/?x=1"
    assert connect["note"] == "sent Authorization: Bearer [redacted]"


def test_log_text_shows_texts_and_still_no_secrets(configured: Configure) -> None:
    logs = configured(log_text=True)
    log.info("post", content="hi", prompt="say hi", password="p")
    line = logs.line("post")
    assert (line["content"], line["prompt"], line["password"]) == ("hi", "say hi", "[redacted]")


def test_a_validation_error_does_not_quote_what_it_rejects(configured: Configure) -> None:
    class Post(pydantic.BaseModel):
        content: int

    logs = configured()
    try:
        Post.model_validate({"content": "a private\nmessage"})
    except pydantic.ValidationError:
        log.exception("refused")
    assert "private" not in logs.getvalue()
    assert "valid integer" in logs.getvalue()


def test_what_is_logged_is_not_changed_for_its_owner(configured: Configure) -> None:
    configured()
    body = {"content": "hi"}
    log.info("post", body=body)
    assert body == {"content": "hi"}


@pytest.mark.parametrize("value", ["\ud800", 1 << 80, b"bytes", {1: "one"}, object()])
def test_no_value_loses_the_line(configured: Configure, value: object) -> None:
    logs = configured()
    log.info("odd", value=value)
    assert logs.line("odd")


async def test_concurrent_tasks_keep_their_context_apart(configured: Configure) -> None:
    logs = configured()
    both_bound = asyncio.Barrier(2)

    async def serve(request: str) -> None:
        bind(request_id=request, session=None)
        await both_bound.wait()
        log.info(f"serving {request}")

    async with asyncio.TaskGroup() as group:
        group.create_task(serve("a"))
        group.create_task(serve("b"))
    log.info("after")
    assert logs.line("serving a")["request_id"] == "a"
    assert logs.line("serving b")["request_id"] == "b"
    assert "request_id" not in logs.line("after")
    assert "session" not in logs.line("serving a")


def test_bound_ends_with_its_block(configured: Configure) -> None:
    logs = configured()
    bind(request_id="outer")
    with bound(request_id="inner", session="chat_1"):
        log.info("in")
    log.info("out")
    assert (logs.line("in")["request_id"], logs.line("in")["session"]) == ("inner", "chat_1")
    assert logs.line("out")["request_id"] == "outer"
    assert "session" not in logs.line("out")


def test_importing_telemetry_is_light() -> None:
    heavy = "opentelemetry", "temporalio", "prometheus_client", "fastapi"
    code = f"import sys, goatherd.telemetry; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
