from __future__ import annotations

import re
from typing import Any

import pytest

from tests.api.conftest import House, check_problem


async def walk(house: House, path: str, rel: str) -> list[list[str]]:
    """The ids of each page, following the links of one kind."""
    pages = []
    while True:
        answer = await house.http.get(path)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        ids = [one["id"] for one in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        pages.append(ids)
        link = re.search(rf'<([^>]*)>; rel="{rel}"', answer.headers.get("link", ""))
        if link is None:
            return pages
        path = link.group(1)


async def test_sessions_are_listed_newest_first_and_walked_both_ways(house: House) -> None:
    made = sorted([await house.session() for _ in range(5)], reverse=True)
    assert await walk(house, "/chat?limit=2", "next") == [made[0:2], made[2:4], made[4:5]]
    assert await walk(house, f"/chat?limit=2&before={made[4]}", "prev") == [made[2:4], made[0:2]]
    up = made[::-1]
    assert await walk(house, "/chat?limit=3&order=asc", "next") == [up[0:3], up[3:5]]


async def test_has_more_tells_of_the_direction_asked_for(house: House) -> None:
    made = sorted([await house.session() for _ in range(3)], reverse=True)

    async def more(query: str) -> bool:
        return bool((await house.http.get(f"/chat?{query}")).json()["has_more"])

    assert await more("limit=2")
    assert not await more("limit=3")
    assert not await more(f"limit=2&after={made[0]}")
    assert not await more(f"limit=2&before={made[2]}")
    assert await more(f"limit=1&before={made[2]}")


async def test_sessions_are_filtered(house: House) -> None:
    labelled, ended = await house.session(labels=["farm"]), await house.session()
    await house.http.delete(f"/chat/{ended}")

    async def ids(query: str) -> list[str]:
        return [one["id"] for one in (await house.http.get(f"/chat?{query}")).json()["data"]]

    assert await ids("label=farm") == [labelled]
    assert await ids("status=ended") == [ended]
    assert await ids("status=active") == [labelled]
    assert await ids("status=ended&label=farm") == []


async def test_a_link_keeps_the_filters(house: House) -> None:
    for _ in range(2):
        await house.session(labels=["a/b"])
    link = (await house.http.get("/chat?label=a/b&limit=1&status=active")).headers["link"]
    assert "label=a%2Fb" in link
    assert "status=active" in link
    assert "limit=1" in link


async def test_messages_are_listed_oldest_first_by_seq_or_id(house: House) -> None:
    session = await house.session()
    made = [(await house.message(session, reply=False))["id"] for _ in range(5)]
    path = f"/chat/{session}/message"
    assert await walk(house, f"{path}?limit=2", "next") == [made[0:2], made[2:4], made[4:5]]
    assert await walk(house, f"{path}?limit=4&order=desc", "next") == [made[:0:-1], made[0:1]]
    for cursor in (made[1], "2"):
        after = (await house.http.get(path, params={"after": cursor})).json()
        assert [one["id"] for one in after["data"]] == made[2:]
        before = (await house.http.get(path, params={"before": cursor, "limit": 1})).json()
        assert [one["id"] for one in before["data"]] == made[0:1]
    assert (await house.http.get(path, params={"after": "999"})).json()["data"] == []


@pytest.mark.parametrize(
    "cursor", ["x", "", "-1", "1.5", "9" * 40, "chat_junk", "msg_01k9w2x6hj3v8m5r7t0q4n1b2c", "%00", "%F0%9F"]
)
async def test_a_cursor_that_points_at_nothing_is_malformed(house: House, cursor: str) -> None:
    session = await house.session()
    for path in ("/chat", f"/chat/{session}", f"/chat/{session}/message"):
        check_problem(await house.http.get(f"{path}?after={cursor}"), 400, "malformed-cursor")


async def test_after_and_before_together_are_malformed(house: House) -> None:
    session = await house.session()
    check_problem(await house.http.get(f"/chat?after={session}&before={session}"), 400, "malformed-cursor")
    check_problem(await house.http.get(f"/chat/{session}/message?after=1&before=2"), 400, "malformed-cursor")


@pytest.mark.parametrize(
    ("query", "parameter", "code"),
    [
        ("limit=0", "limit", "invalid-parameter"),
        ("limit=101", "limit", "invalid-parameter"),
        ("limit=many", "limit", "invalid-parameter"),
        ("order=up", "order", "invalid-parameter"),
        ("status=gone", "status", "invalid-parameter"),
        ("label=%00", "label", "invalid-parameter"),
        ("stauts=ended", "stauts", "unknown-parameter"),
    ],
)
async def test_a_parameter_that_makes_no_sense_is_named(
    house: House, query: str, parameter: str, code: str
) -> None:
    problem: dict[str, Any] = check_problem(await house.http.get(f"/chat?{query}"), 422, code)
    assert problem["errors"][0]["parameter"] == parameter


async def test_a_parameter_where_none_is_taken_is_refused(house: House) -> None:
    session = await house.session()
    message = (await house.message(session))["id"]
    for method, path in [
        ("GET", f"/chat/{session}/message/{message}"),
        ("POST", f"/chat/{session}/message"),
        ("DELETE", f"/chat/{session}"),
    ]:
        answer = await house.http.request(method, f"{path}?verbose=1")
        check_problem(answer, 422, "unknown-parameter")
    assert house.store.chats[session].status == "active"
