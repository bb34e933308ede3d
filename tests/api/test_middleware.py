from __future__ import annotations

from typing import Any

import httpx
import pytest
import structlog

from api.middleware import Guard
from goatherd.telemetry import metrics
from tests.api.conftest import BASE, House, build, check_problem, make_settings


async def test_a_request_id_is_taken_over_or_made(house: House) -> None:
    given = await house.http.get("/healthz", headers={"x-request-id": "my-id/1"})
    assert given.headers["x-request-id"] == "my-id/1"
    made = (await house.http.get("/healthz")).headers["x-request-id"]
    assert made.startswith("req_")
    for bad in ("", "with space", "x" * 129, "é".encode()):
        answer = await house.http.get("/healthz", headers={"x-request-id": bad})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_each_request_is_one_line_without_its_query(house: House) -> None:
    session = await house.session()
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await house.http.get(f"/chat/{session}?limit=7", headers={"x-request-id": "r1"})
        await house.http.get("/nowhere?q=secret")
    first, second = lines
    ms = first.pop("ms")
    assert first == {
        "event": "request",
        "log_level": "info",
        "method": "GET",
        "route": "/chat/{session}",
        "status": 200,
        "request_id": "r1",
        "session": session,
    }
    assert 0 <= ms < 1_000
    assert (second["route"], second["status"]) == ("(none)", 404)
    assert "secret" not in str(lines)
    assert structlog.contextvars.get_contextvars() == {}


async def test_requests_are_counted_by_route_template(house: House) -> None:
    labels = ("GET", "/chat/{session}", "404")
    before = metrics.HTTP_REQUESTS.labels(*labels)._value.get()
    await house.http.get("/chat/one")
    await house.http.get("/chat/two")
    assert metrics.HTTP_REQUESTS.labels(*labels)._value.get() == before + 2
    assert 'route="/chat/{session}"' in (await house.http.get("/metrics")).text


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:1", "127.9.9.9", "[::1]:80", "LOCALHOST:8080", "a.localhost"]
)
async def test_loopback_names_are_served(house: House, host: str) -> None:
    assert (await house.http.get("/healthz", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", ""]
)
async def test_a_name_that_was_made_to_point_here_is_refused(house: House, host: str) -> None:
    check_problem(await house.http.get("/chat", headers={"host": host}), 403, "host-not-allowed")


@pytest.mark.parametrize("house_of", [{"host": "0.0.0.0"}], indirect=True)
async def test_who_listens_to_the_world_is_called_by_any_name(house_of: House) -> None:
    assert (await house_of.http.get("/healthz", headers={"host": "goats.example"})).status_code == 200


@pytest.mark.parametrize("house_of", [{"host": "0.0.0.0", "allowed_hosts": ["goats.example"]}], indirect=True)
async def test_named_hosts_are_the_only_ones(house_of: House) -> None:
    for host, status in [("goats.example:443", 200), ("localhost", 200), ("other.example", 403)]:
        assert (await house_of.http.get("/healthz", headers={"host": host})).status_code == status


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:9", "https://localhost:8080"]
)
async def test_foreign_pages_change_nothing(house: House, origin: str) -> None:
    session = await house.session()
    for method, path in [("POST", "/chat"), ("DELETE", f"/chat/{session}")]:
        answer = await house.http.request(method, path, headers={"origin": origin})
        check_problem(answer, 403, "origin-not-allowed")
    assert (await house.http.get("/chat", headers={"origin": origin})).status_code == 200
    assert len(house.store.chats) == 1


async def test_our_own_pages_may(house: House) -> None:
    assert (await house.http.post("/chat", headers={"origin": BASE})).status_code == 201
    plain = {"host": "localhost", "origin": "http://localhost:80"}
    assert (await house.http.post("/chat", headers=plain)).status_code == 201


@pytest.mark.parametrize("house_of", [{"allowed_origins": ["https://app.example"]}], indirect=True)
async def test_allowed_pages_may_and_can_read_the_answer(house_of: House) -> None:
    origin = {"origin": "https://app.example"}
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    preflight = await house_of.http.options("/chat", headers={**origin, **asked})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    answer = await house_of.http.post("/chat", headers=origin)
    assert answer.status_code == 201
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    foreign = await house_of.http.post("/chat", headers={"origin": "https://evil.example"})
    check_problem(foreign, 403, "origin-not-allowed")


async def handshake(origin: bytes | None, host: bytes = b"localhost:8080") -> list[dict[str, Any]]:
    """What the app sends to a WebSocket handshake that it turns away."""
    app = build(make_settings())[0]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", host)] + ([(b"origin", origin)] if origin else [])
    scope = {
        "type": "websocket",
        "path": "/chat/x/ws",
        "raw_path": b"/chat/x/ws",
        "query_string": b"",
        "scheme": "ws",
        "headers": headers,
        "extensions": {"websocket.http.response": {}},
        "subprotocols": [],
        "state": {},
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    return sent


@pytest.mark.parametrize(
    ("origin", "host"), [(b"https://evil.example", b"localhost:8080"), (None, b"evil.example")]
)
async def test_foreign_pages_open_no_socket(origin: bytes | None, host: bytes) -> None:
    start, body = await handshake(origin, host)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 403)
    assert any(name == b"x-request-id" for name, _ in start["headers"])
    assert b"not-allowed" in body["body"]


async def test_a_broken_answer_breaks_the_connection(house: House) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    transport = httpx.ASGITransport(Guard(app, settings=make_settings()))
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as http:
        with pytest.raises(RuntimeError, match="half-way"):
            await http.get("/")
