from __future__ import annotations

import asyncio

import pytest

from goatherd.errors import DeadlineExceeded, GoatherdError, SessionBusy, TooManyRequests, Unavailable
from tests.api.conftest import House, check_problem

KEY = {"idempotency-key": "one"}


async def test_the_same_request_again_is_answered_the_same_and_done_once(house: House) -> None:
    session = await house.session()
    path = f"/chat/{session}/message"
    first = await house.http.post(path, json={"content": "hi", "reply": True}, headers=KEY)
    # The same JSON, written in another way.
    again = await house.http.post(
        path, content='{"reply": true,  "content":"hi"}', headers={**KEY, "content-type": "application/json"}
    )
    assert (again.status_code, again.content) == (201, first.content)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    for name in ("location", "etag"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert house.service.posts == 1


async def test_every_post_takes_a_key(house: House) -> None:
    session = await house.session()
    message = await house.message(session)
    for path, body in [
        ("/chat", {}),
        (f"/chat/{session}/fork", {}),
        (f"/chat/{session}/message/{message['id']}/regenerate", {}),
        (f"/chat/{session}/message/{message['id']}/feedback", {"rating": "up"}),
    ]:
        first = await house.http.post(path, json=body, headers=KEY)
        again = await house.http.post(path, json=body, headers=KEY)
        assert first.is_success, first.text
        assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


async def test_a_key_for_another_body_is_refused(house: House) -> None:
    await house.http.post("/chat", json={"title": "a"}, headers=KEY)
    other = await house.http.post("/chat", json={"title": "b"}, headers=KEY)
    check_problem(other, 422, "idempotency-key-reused")
    assert len(house.store.chats) == 1


async def test_a_key_belongs_to_its_path(house: House) -> None:
    one, two = await house.session(), await house.session()
    for session in (one, two):
        answer = await house.http.post(f"/chat/{session}/message", json={"content": "hi"}, headers=KEY)
        assert "idempotency-replayed" not in answer.headers
    assert house.service.posts == 2


async def test_while_the_first_is_running_the_second_is_told_to_come_back(house: House) -> None:
    house.service.gate = asyncio.Event()
    first = asyncio.create_task(house.http.post("/chat", json={}, headers=KEY))
    await asyncio.sleep(0.01)
    early = await house.http.post("/chat", json={}, headers=KEY)
    check_problem(early, 409, "idempotency-key-in-use")
    assert early.headers["retry-after"] == "1"
    assert early.headers["x-should-retry"] == "true"
    house.service.gate.set()
    assert (await first).status_code == 201


async def test_a_takeover_makes_nothing_twice(house: House) -> None:
    session = await house.session()
    path = f"/chat/{session}/message"
    house.keys.settle_fails = True
    first = await house.http.post(path, json={"content": "hi"}, headers=KEY)
    house.keys.expired, house.keys.settle_fails = True, False
    again = await house.http.post(path, json={"content": "hi"}, headers=KEY)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert len(house.store.texts[session]) == 2


async def test_a_definitive_error_is_the_answer_from_then_on(house: House) -> None:
    session = await house.session()
    await house.http.delete(f"/chat/{session}")
    path = f"/chat/{session}/message"
    first = await house.http.post(path, json={"content": "hi"}, headers=KEY)
    again = await house.http.post(path, json={"content": "hi"}, headers=KEY)
    check_problem(first, 409, "session-ended")
    check_problem(again, 409, "session-ended")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-should-retry"] == "false"
    missing = "/chat/chat_01k9w2x6hj3v8m5r7t0q4n1b2c/message"
    for replayed in (False, True):
        answer = await house.http.post(missing, json={"content": "hi"}, headers=KEY)
        check_problem(answer, 404, "not-found")
        assert ("idempotency-replayed" in answer.headers) is replayed


PASSING = [
    SessionBusy("Busy."),
    TooManyRequests("Slow down."),
    DeadlineExceeded("Late."),
    Unavailable("Down."),
]


@pytest.mark.parametrize("fault", PASSING)
async def test_when_it_may_pass_later_the_key_is_free_at_once(house: House, fault: GoatherdError) -> None:
    session = await house.session()
    house.service.fault = fault
    path = f"/chat/{session}/message"
    refused = await house.http.post(path, json={"content": "hi"}, headers=KEY)
    assert refused.json()["code"] == fault.code
    house.service.fault = None
    held = list(house.keys.claims.values())
    assert (await house.http.post(path, json={"content": "hi"}, headers=KEY)).status_code == 201
    assert list(house.keys.claims.values())[-1] == held[-1]


@pytest.mark.parametrize("fault", [DeadlineExceeded("Late."), Unavailable("Down."), RuntimeError("bug")])
async def test_when_it_is_not_known_what_was_done_the_ids_stay(house: House, fault: Exception) -> None:
    session = await house.session()
    path = f"/chat/{session}/message"
    house.service.fault = fault
    assert (await house.http.post(path, json={"content": "hi"}, headers=KEY)).status_code >= 500
    (held,) = house.keys.claims.values()
    house.service.fault, house.keys.expired = None, True
    assert (await house.http.post(path, json={"content": "hi"}, headers=KEY)).status_code == 201
    assert list(house.keys.claims.values()) == [held]


async def test_invalid_bodies_use_no_key_up(house: House) -> None:
    assert (await house.http.post("/chat", json={"title": 1}, headers=KEY)).status_code == 422
    assert (await house.http.post("/chat", json={"title": "a"}, headers=KEY)).status_code == 201


@pytest.mark.parametrize("key", ["", "a b", "é".encode(), "x" * 256])
async def test_a_key_has_to_be_visible_ascii(house: House, key: str | bytes) -> None:
    answer = await house.http.post("/chat", json={}, headers={"idempotency-key": key})
    problem = check_problem(answer, 422, "idempotency-key-invalid")
    assert problem["errors"][0]["header"] == "Idempotency-Key"
