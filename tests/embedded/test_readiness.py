"""Following `/readyz`: every part is told once it is ready, and what lasts is told while it lasts."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from goatherd.embedded._readiness import Readiness

Answers = list[tuple[int, bytes]]


@pytest.fixture
def api() -> Iterator[tuple[int, Answers]]:
    """A port, and what it answers: each once, the last one for ever."""
    answers: Answers = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], answers
    server.shutdown()
    server.server_close()
    thread.join()


def checks(**parts: tuple[bool, str]) -> bytes:
    return json.dumps(
        {"checks": {k: {"ok": ok, "detail": detail} for k, (ok, detail) in parts.items()}}
    ).encode()


async def test_each_part_is_told_once_and_loading_is_told(api: tuple[int, Answers]) -> None:
    port, answers = api
    answers += [
        (503, checks(store=(True, ""), model=(False, "loading weights"))),
        (503, checks(store=(True, ""), model=(False, "loading weights"))),
        (200, checks(store=(True, ""), model=(True, "ready"))),
    ]
    told: list[tuple[str, bool, str]] = []
    readiness = Readiness("127.0.0.1", port, lambda *said: told.append(said))
    await asyncio.wait_for(readiness.wait(), 10)
    assert told == [("store", True, ""), ("model", False, "loading weights"), ("model", True, "ready")]


async def test_an_answer_of_another_kind_is_no_readiness_and_no_crash(api: tuple[int, Answers]) -> None:
    port, answers = api
    answers += [
        (404, b"<html>"),
        (503, b"[]"),
        (503, b'{"checks": [1]}'),
        (503, b'{"checks": {"a": 1}}'),
        (200, b""),
    ]
    told: list[object] = []
    await asyncio.wait_for(Readiness("127.0.0.1", port, lambda *said: told.append(said)).wait(), 10)
    assert told == []
