from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import Response

from api.routes import messages
from tests.api.conftest import House, check_problem

UNKNOWN = "msg_01k9w2x6hj3v8m5r7t0q4n1b2c"


async def test_a_message_is_stored_and_its_reply_is_named(house: House) -> None:
    session = await house.session()
    answer = await house.http.post(f"/chat/{session}/message", json={"content": "hi"})
    posted = answer.json()
    assert answer.status_code == 201
    assert (posted["content"], posted["role"], posted["status"], posted["seq"]) == (
        "hi",
        "user",
        "completed",
        1,
    )
    assert posted["reply"].startswith("msg_")
    read = await house.http.get(answer.headers["location"])
    assert read.headers["etag"] == answer.headers["etag"]
    assert read.json() == {k: v for k, v in posted.items() if k not in ("reply", "reply_message")}
    coming = (await house.http.get(f"/chat/{session}/message/{posted['reply']}")).json()
    assert (coming["role"], coming["status"], coming["parent"]) == ("assistant", "queued", posted["id"])


async def test_without_a_reply_none_is_named(house: House) -> None:
    session = await house.session()
    assert (await house.message(session, reply=False))["reply"] is None
    assert (await house.message(session, role="system"))["reply"] is None


async def test_a_message_that_the_client_has_is_not_sent_again(house: House) -> None:
    session = await house.session()
    path = f"/chat/{session}/message/{(await house.message(session))['id']}"
    tag = (await house.http.get(path)).headers["etag"]
    assert (await house.http.get(path, headers={"if-none-match": tag})).status_code == 304
    await house.http.post(f"{path}/feedback", json={"rating": "up"})
    assert (await house.http.get(path, headers={"if-none-match": tag})).status_code == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/content"),
        ({"content": ""}, "/content"),
        ({"content": 5}, "/content"),
        ({"content": " \n\t\u3000"}, "/content"),
        ({"content": "x" * 200_001}, "/content"),
        ({"content": "x", "role": "robot"}, "/role"),
        ({"content": "x", "reply": "yes"}, "/reply"),
        ({"content": "x", "on_busy": "panic"}, "/on_busy"),
        ({"content": "x", "client_id": "no spaces"}, "/client_id"),
        ({"content": "x", "parent_id": "junk"}, "/parent_id"),
        ({"content": "x", "parent_id": UNKNOWN}, "/parent_id"),
        ({"content": "x", "text": "x"}, "/text"),
        ({"content": "x", "model": "nothing"}, "/model"),
        ({"content": "x", "generation": {"temperature": 3}}, "/generation/temperature"),
    ],
)
async def test_a_message_that_makes_no_sense_is_pointed_at(
    house: House, body: dict[str, Any], pointer: str
) -> None:
    session = await house.session()
    problem = (await house.http.post(f"/chat/{session}/message", json=body)).json()
    assert problem["status"] == 422
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert house.store.texts[session] == {}


async def test_white_space_around_a_text_stays(house: House) -> None:
    assert (await house.message(await house.session(), "\n hi "))["content"] == "\n hi "


async def test_too_much_text_is_told_in_bytes(house: House) -> None:
    session = await house.session()
    answer = await house.http.post(f"/chat/{session}/message", json={"content": "🐐" * 40_000})
    (error,) = check_problem(answer, 422, "invalid")["errors"]
    assert error == {"pointer": "/content", "detail": "Has to be at most 128 KiB of UTF-8."}


async def test_prefer_wait_gives_the_reply_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await house.session()
    waited: list[tuple[int, float]] = []

    async def wait(feed: Any, chat: str, reply_id: str, since_seq: int, timeout_s: float) -> None:
        waited.append((since_seq, timeout_s))
        house.service.finish(chat, reply_id, "hello")

    monkeypatch.setattr(messages.chat_streams, "wait_for_reply", wait)
    answer = await house.http.post(
        f"/chat/{session}/message",
        json={"content": "hi"},
        headers={"prefer": "respond-async, wait=7", "idempotency-key": "k"},
    )
    posted = answer.json()
    assert answer.status_code == 201
    assert answer.headers["preference-applied"] == "wait=7"
    assert waited == [(1, 7.0)]
    assert (posted["reply_message"]["id"], posted["reply_message"]["content"]) == (posted["reply"], "hello")
    again = await house.http.post(
        f"/chat/{session}/message",
        json={"content": "hi"},
        headers={"prefer": "wait=9999", "idempotency-key": "k"},
    )
    assert again.json() == posted
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["preference-applied"] == "wait=120"


@pytest.mark.parametrize("prefer", ["wait", "wait=", "wait=soon", "return=minimal", ";;;", "wait=0"])
async def test_a_preference_that_says_nothing_is_ignored(house: House, prefer: str) -> None:
    session = await house.session()
    answer = await house.http.post(
        f"/chat/{session}/message", json={"content": "hi"}, headers={"prefer": prefer}
    )
    assert answer.status_code == 201
    assert "preference-applied" not in answer.headers


async def test_the_reply_can_be_streamed_and_streamed_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await house.session()

    def stream(feed: Any, chat: str, message: Any, reply: Any) -> Response:
        return Response(f"data: {message.id} {reply.id}\n\n", media_type="text/event-stream")

    monkeypatch.setattr(messages.chat_streams, "reply_stream", stream)
    headers = {"accept": "text/event-stream", "idempotency-key": "k"}
    first, second = [
        await house.http.post(f"/chat/{session}/message", json={"content": "hi"}, headers=headers)
        for _ in range(2)
    ]
    assert first.headers["content-type"].startswith("text/event-stream")
    assert first.text == second.text
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert house.service.posts == 1


async def test_deleting_a_message_counts_once(house: House) -> None:
    session = await house.session()
    path = f"/chat/{session}/message/{(await house.message(session))['id']}"
    for _ in range(2):
        assert (await house.http.delete(path)).status_code == 204
    assert (await house.http.get(path)).json()["status"] == "deleted"
    check_problem(await house.http.post(f"{path}/feedback", json={"rating": "up"}), 409, "message-deleted")


async def test_a_reply_is_stopped_and_only_once(house: House) -> None:
    session = await house.session()
    posted = await house.message(session)
    path = f"/chat/{session}/message/{posted['reply']}"
    headers = {"idempotency-key": "k"}
    answer, again = [await house.http.post(f"{path}/cancel", headers=headers) for _ in range(2)]
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert (again.json(), again.headers["idempotency-replayed"]) == (answer.json(), "true")
    read = await house.http.get(path)
    assert (read.json(), read.headers["etag"]) == (answer.json(), answer.headers["etag"])
    for finished in (posted["reply"], posted["id"]):
        late = await house.http.post(f"/chat/{session}/message/{finished}/cancel", json={})
        check_problem(late, 409, "message-finished")
        assert late.headers["x-should-retry"] == "false"


async def test_what_is_not_there_cannot_be_stopped(house: House) -> None:
    session = await house.session()
    for message in (UNKNOWN, "junk"):
        check_problem(await house.http.post(f"/chat/{session}/message/{message}/cancel"), 404, "not-found")
    path = f"/chat/{session}/message/{(await house.message(session))['reply']}/cancel"
    check_problem(await house.http.post(path, json={"why": "so"}), 422, "invalid")
    check_problem(await house.http.post(f"{path}?x=1"), 422, "unknown-parameter")


async def test_another_reply_stands_beside_the_first(house: House) -> None:
    session = await house.session()
    posted = await house.message(session)
    answer = await house.http.post(f"/chat/{session}/message/{posted['id']}/regenerate")
    reply = answer.json()
    assert answer.status_code == 201
    assert reply["parent"] == posted["id"]
    assert reply["id"] != posted["reply"]
    assert answer.headers["location"] == f"/chat/{session}/message/{reply['id']}"
    bad = await house.http.post(
        f"/chat/{session}/message/{posted['id']}/regenerate", json={"model": "nothing"}
    )
    check_problem(bad, 422, "model-not-found")


async def test_feedback_is_kept_with_the_message(house: House) -> None:
    session = await house.session()
    path = f"/chat/{session}/message/{(await house.message(session))['id']}"
    answer = await house.http.post(f"{path}/feedback", json={"rating": "down", "comment": "no"})
    assert answer.status_code == 200
    assert answer.json()["feedback"] == {"rating": "down", "comment": "no"}
    bad = await house.http.post(f"{path}/feedback", json={"rating": "meh"})
    assert check_problem(bad, 422, "invalid")["errors"][0]["pointer"] == "/rating"
