from __future__ import annotations

import re

import pytest

from goatherd.contracts.ids import CHAT_ID
from tests.api.conftest import House, check_problem

UNKNOWN = "chat_01k9w2x6hj3v8m5r7t0q4n1b2c"


async def test_a_session_starts_from_nothing_at_all(house: House) -> None:
    answer = await house.http.post("/chat")
    session = answer.json()
    assert answer.status_code == 201
    assert re.match(CHAT_ID, session["id"])
    assert answer.headers["location"] == f"/chat/{session['id']}"
    assert (session["status"], session["state"], session["last_seq"]) == ("active", "idle", 0)
    assert session["messages"] == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


async def test_all_that_is_given_is_kept(house: House) -> None:
    body = {
        "title": "Goats",
        "agent": "assistant",
        "model": "other",
        "system": "Be brief.",
        "labels": ["farm", "a/b"],
        "metadata": {"team": "blue"},
        "generation": {"max_tokens": 5, "stop": ["END"]},
    }
    answer = await house.http.post("/chat", json=body)
    session = answer.json()
    assert answer.status_code == 201
    assert {key: session[key] for key in ("title", "agent", "model", "system", "labels", "metadata")} == {
        key: body[key] for key in ("title", "agent", "model", "system", "labels", "metadata")
    }


async def test_the_etag_of_a_new_session_is_that_of_reading_it(house: House) -> None:
    created = await house.http.post("/chat", json={})
    read = await house.http.get(created.headers["location"])
    assert read.json() == created.json()
    assert read.headers["etag"] == created.headers["etag"]


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_session_that_the_client_has_is_not_sent_again(house: House, form: str) -> None:
    session = await house.session()
    tag = (await house.http.get(f"/chat/{session}")).headers["etag"]
    header = {"if-none-match": form.replace("{}", tag)}
    same = await house.http.get(f"/chat/{session}", headers=header)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await house.message(session)
    if form != "*":
        changed = await house.http.get(f"/chat/{session}", headers=header)
        assert changed.status_code == 200


async def test_a_session_is_read_with_its_messages_and_what_it_does(house: House) -> None:
    session = await house.session()
    first = await house.message(session, "one")
    await house.message(session, "two", reply=False)
    read = (await house.http.get(f"/chat/{session}", params={"limit": 2})).json()
    assert (read["state"], read["last_seq"]) == ("replying", 3)
    assert [one["content"] for one in read["messages"]["data"]] == ["one", ""]
    assert read["messages"]["has_more"] is True
    for cursor in (read["messages"]["last_id"], "2"):
        rest = (await house.http.get(f"/chat/{session}", params={"after": cursor})).json()
        assert [one["content"] for one in rest["messages"]["data"]] == ["two"]
    house.service.finish(session, first["reply"], "done")
    assert (await house.http.get(f"/chat/{session}")).json()["state"] == "idle"


async def test_five_point_nothing_is_a_whole_number(house: House) -> None:
    for tokens, status in [("5.0", 201), ("5.5", 422), ('"5"', 422), ("1e9", 422)]:
        content = f'{{"generation": {{"max_tokens": {tokens}}}}}'
        answer = await house.http.post("/chat", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == status, tokens


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"agent": "nobody"}, "agent-not-found", "/agent"),
        ({"model": "nothing"}, "model-not-found", "/model"),
        ({"titel": "x"}, "invalid", "/titel"),
        ({"title": "x" * 201}, "invalid", "/title"),
        ({"title": 5}, "invalid", "/title"),
        ({"labels": ["no spaces"]}, "invalid", "/labels/0"),
        ({"labels": ["x"] * 17}, "invalid", "/labels"),
        ({"metadata": {"a/b": "x"}}, "invalid", "/metadata/a~1b"),
        ({"metadata": {"a": 1}}, "invalid", "/metadata/a"),
        ({"generation": {"temperature": "hot"}}, "invalid", "/generation/temperature"),
        ({"generation": {"top_kk": 5}}, "invalid", "/generation/top_kk"),
        ({"generation": {"max_tokens": True}}, "invalid", "/generation/max_tokens"),
        ([], "invalid", ""),
        (None, "invalid", ""),
    ],
)
async def test_what_makes_no_sense_is_pointed_at(house: House, body: object, code: str, pointer: str) -> None:
    text = "null" if body is None else None
    answer = await (
        house.http.post("/chat", content=text, headers={"content-type": "application/json"})
        if text
        else house.http.post("/chat", json=body)
    )
    problem = check_problem(answer, 422, code)
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert house.store.chats == {}


async def test_ending_a_session_counts_once_and_leaves_it_readable(house: House) -> None:
    session = await house.session()
    for _ in range(2):
        answer = await house.http.delete(f"/chat/{session}")
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await house.http.get(f"/chat/{session}")).json()["status"] == "ended"
    refused = await house.http.post(f"/chat/{session}/message", json={"content": "hi"})
    check_problem(refused, 409, "session-ended")
    assert refused.headers["x-should-retry"] == "false"


async def test_what_is_somebody_elses_does_not_exist(house: House) -> None:
    session = await house.session()
    house.store.chats[session] = house.store.chats[session].model_copy(update={"owner": "another"})
    for path in (f"/chat/{session}", f"/chat/{session}/message"):
        check_problem(await house.http.get(path), 404, "not-found")
    check_problem(await house.http.delete(f"/chat/{session}"), 404, "not-found")
    assert (await house.http.get("/chat")).json()["data"] == []


@pytest.mark.parametrize(
    "junk",
    [
        UNKNOWN,
        "x",
        "%00",
        f"{UNKNOWN}%0A",
        f"{UNKNOWN}%00",
        "..%2F..%2Fetc",
        "%ff%fe",
        "💥",
        "chat_" + "l" * 26,
        "x" * 5_000,
        "chat_01k9w2x6hj3v8m5r7t0q4n1b2c%2Fmessage%2F",
    ],
)
async def test_an_id_that_never_was_is_not_found_whatever_it_looks_like(house: House, junk: str) -> None:
    for method, path in [
        ("GET", f"/chat/{junk}"),
        ("DELETE", f"/chat/{junk}"),
        ("GET", f"/chat/{junk}/message"),
        ("POST", f"/chat/{junk}/message"),
        ("POST", f"/chat/{junk}/fork"),
        ("GET", f"/chat/{junk}/message/{junk}"),
        ("DELETE", f"/chat/{junk}/message/{junk}"),
        ("POST", f"/chat/{junk}/message/{junk}/regenerate"),
        ("POST", f"/chat/{junk}/message/{junk}/feedback"),
    ]:
        body = {"content": "hi"} if path.endswith("message") else {"rating": "up"}
        answer = await house.http.request(method, path, json=body if method == "POST" else None)
        if path.endswith(("fork", "regenerate")):
            answer = await house.http.request(method, path)
        assert answer.status_code == 404, (method, path, answer.text)
        assert answer.json()["code"] in ("not-found", "route-not-found")


async def test_a_fork_is_a_session_of_its_own(house: House) -> None:
    session = await house.session(title="One")
    message = await house.message(session)
    answer = await house.http.post(f"/chat/{session}/fork", json={"message": message["id"], "title": "Two"})
    fork = answer.json()
    assert answer.status_code == 201
    assert fork["id"] != session
    assert answer.headers["location"] == f"/chat/{fork['id']}"
    assert fork["title"] == "Two"
    assert (await house.http.get(answer.headers["location"])).headers["etag"] == answer.headers["etag"]


async def test_a_fork_of_nothing_is_refused(house: House) -> None:
    session = await house.session()
    check_problem(await house.http.post(f"/chat/{session}/fork"), 409, "empty-session")
    missing = {"message": "msg_01k9w2x6hj3v8m5r7t0q4n1b2c"}
    check_problem(await house.http.post(f"/chat/{session}/fork", json=missing), 404, "not-found")
