from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from starlette.responses import Response

from goatherd.terminal._api import Refused
from tests.terminal.conftest import Talk
from tests.terminal.server import (
    REPLY,
    SESSION,
    USER,
    FakeApi,
    delta,
    drop,
    finished,
    frame,
    message,
    problem,
    session,
)

CREATED = frame("message.created", "5", {"message": {}}, USER)
STARTED = frame("run.started", "6", {"model": "fake"})
PING = frame("ping", None, {})


async def test_a_line_is_posted_and_exactly_its_reply_is_printed(fake: FakeApi, talk: Talk) -> None:
    other = delta(0, "not for us", "msg_01k9w2x6hj3v8m5r7t0q4n1b2f")
    hello = "Hé\u2028llo,\x85 you 🐐"
    fake.streams = [
        [
            CREATED,
            STARTED,
            PING,
            other,
            delta(0, hello),
            delta(len(hello), "!"),
            finished("completed", hello + "!"),
        ]
    ]
    await talk.chat.open(None)
    assert await talk.run("hi there", "  ") == 0
    assert talk.out.getvalue() == hello + "!\n"
    assert fake.calls == ["create {}", "post application/json"]
    assert [post["content"] for post in fake.posts] == ["hi there"]
    assert fake.cursors == ["4"]


async def test_a_reply_that_came_all_at_once_is_printed(fake: FakeApi, talk: Talk) -> None:
    fake.streams = [[finished("completed", "Whole.")]]
    await talk.chat.open(SESSION)
    assert await talk.run("hi") == 0
    assert talk.out.getvalue() == "Whole.\n"


async def test_a_dropped_stream_is_resumed_with_the_last_id_and_shows_nothing_twice(
    fake: FakeApi, talk: Talk
) -> None:
    fake.streams = [
        [CREATED, delta(0, "One, "), delta(5, "two"), drop],
        [problem(503, "unavailable", "Not now.")],
        [],
        [delta(5, "two, th"), delta(5, "two"), delta(12, "ree."), finished("completed", "One, two, three.")],
    ]
    await talk.chat.open(SESSION)
    assert await talk.run("count") == 0
    assert talk.out.getvalue() == "One, two, three.\n"
    assert fake.cursors == ["4", *[f"6:{REPLY}:8"] * 3]
    assert talk.err.getvalue().count("connection lost, reconnecting…") == 1


async def test_a_gap_is_filled_from_the_message_itself(fake: FakeApi, talk: Talk) -> None:
    fake.reply = message(REPLY, "assistant", "abcdef", "in_progress")
    fake.streams = [[delta(0, "ab"), delta(4, "ef"), delta(6, "g"), finished("completed", "abcdefg")]]
    await talk.chat.open(SESSION)
    assert await talk.run("spell") == 0
    assert talk.out.getvalue() == "abcdefg\n"


async def test_a_cursor_that_is_too_old_is_replaced(fake: FakeApi, talk: Talk) -> None:
    fake.reply = message(REPLY, "assistant", "abc", "in_progress")
    fake.streams = [
        [problem(410, "gone", "Too old.")],
        [delta(3, "d"), finished("completed", "abcd")],
    ]
    await talk.chat.open(SESSION)
    fake.session["last_seq"] = 90
    assert await talk.run("spell") == 0
    assert talk.out.getvalue() == "abcd\n"
    assert fake.cursors == ["4", "90"]


async def test_the_next_reply_is_followed_from_where_the_last_one_ended(fake: FakeApi, talk: Talk) -> None:
    fake.streams = [[finished("completed", "one")], [finished("completed", "two")]]
    await talk.chat.open(SESSION)
    assert await talk.run("1", "2") == 0
    assert fake.cursors == ["4", "7"]


async def test_a_post_that_fails_on_the_way_is_repeated_with_the_same_client_id(
    fake: FakeApi, talk: Talk
) -> None:
    fake.post_failures = [None, problem(503, "unavailable", "Busy."), Response(status_code=502)]
    fake.streams = [[finished("completed", "Yes.")], [finished("completed", "Yes.")]]
    await talk.chat.open(SESSION)
    assert await talk.run("once", "twice") == 0
    ids = [post["client_id"] for post in fake.posts]
    assert len(ids) == 5
    assert len(set(ids[:4])) == 1
    assert ids[4] != ids[0]
    assert talk.err.getvalue().count("trying again…") == 1


async def test_an_interrupt_cancels_the_reply_and_keeps_what_there_is(fake: FakeApi, talk: Talk) -> None:
    fake.streams = [[delta(0, "Once upon"), fake.cancelled.wait, finished("cancelled", "Once upon a")]]
    await talk.chat.open(SESSION)
    running = asyncio.create_task(talk.run("tell", "never posted"))
    await talk.out.written.wait()
    talk.chat.interrupt()
    assert await running == 130
    assert talk.out.getvalue() == "Once upon a\n"
    assert fake.calls[-1] == f"cancel {REPLY}"
    assert len(fake.posts) == 1


async def test_an_interrupt_that_comes_too_late_leaves_the_reply_as_it_is(fake: FakeApi, talk: Talk) -> None:
    fake.cancel_failure = problem(409, "message-finished", "The message is completed already.")
    fake.streams = [[delta(0, "Once"), fake.cancelled.wait, finished("completed", "Once.")]]
    await talk.chat.open(SESSION)
    running = asyncio.create_task(talk.run("tell"))
    await talk.out.written.wait()
    talk.chat.interrupt()
    assert await running == 130
    assert talk.out.getvalue() == "Once.\n"
    assert "cancelled" not in talk.err.getvalue()


async def test_a_second_interrupt_stops_waiting(fake: FakeApi, talk: Talk) -> None:
    fake.streams = [[delta(0, "Once"), asyncio.Event().wait]]
    await talk.chat.open(SESSION)
    running = asyncio.create_task(talk.run("tell"))
    await talk.out.written.wait()
    talk.chat.interrupt()
    await fake.cancelled.wait()
    talk.chat.interrupt()
    assert await running == 130
    assert "stopped waiting" in talk.err.getvalue()


async def test_a_failed_reply_is_told_and_counts(fake: FakeApi, talk: Talk) -> None:
    error = {"code": "out-of-memory", "message": "The model ran out of memory."}
    fake.streams = [[delta(0, "Hm"), finished("failed", "Hm", error=error)]]
    await talk.chat.open(SESSION)
    assert await talk.run("hi") == 1
    assert talk.out.getvalue() == "Hm\n"
    assert "The reply failed: The model ran out of memory." in talk.err.getvalue()


async def test_the_sessions_end_ends_the_wait(fake: FakeApi, talk: Talk) -> None:
    fake.streams = [[frame("session.ended", "7", {"reason": "terminated"})]]
    await talk.chat.open(SESSION)
    assert await talk.run("hi") == 1
    assert "the session was ended" in talk.err.getvalue()


async def test_a_refusal_is_one_clear_line(fake: FakeApi, talk: Talk) -> None:
    fake.post_failures = [problem(409, "session-ended", "The session\nhas ended. Fork it to go on.")]
    await talk.chat.open(SESSION)
    assert await talk.run("hi") == 1
    assert talk.err.getvalue().splitlines()[-1] == "The session has ended. Fork it to go on."
    with pytest.raises(Refused, match=r"There is no such session\."):
        await talk.chat.open("nobody's")


_WHAT = ("shows this", "goes on with that session", "leaves; the session stays")


@pytest.mark.parametrize(
    ("title", "messages", "shown"),
    [
        ("Goats", ["no"], "Goats"),
        (None, [], "(empty)"),
        (None, ["How do\n goats climb?"], "“How do goats climb?”"),
        (None, ["goat " * 20], f"“{('goat ' * 9)}goat…”"),
        (None, ["x" * 60], f"“{'x' * 50}…”"),
    ],
)
async def test_a_listed_session_has_its_title_or_its_beginning(
    fake: FakeApi, talk: Talk, title: str | None, messages: list[str], shown: str
) -> None:
    fake.session = session(title=title)
    fake.messages = [message(USER, "user", content) for content in messages]
    await talk.chat.open(SESSION)
    assert await talk.run("/sessions") == 0
    assert talk.err.getvalue().splitlines()[-1].endswith(f"  {shown}")


async def test_commands(fake: FakeApi, talk: Talk) -> None:
    fake.messages = [message(USER, "user", "hi"), message(REPLY, "assistant", "par", "cancelled")]
    fake.streams = [[finished("completed", "Again.")]]
    await talk.chat.open(SESSION)
    lines = [
        "/help",
        "/sessions",
        "/history",
        "/regenerate",
        "/end",
        "/new",
        f"/open {SESSION}",
        "/quit",
        "no",
    ]
    assert await talk.run(*lines) == 0
    said = talk.err.getvalue()
    assert all(command in said for command in talk.chat.commands)
    columns = {line.index(what) for line in said.splitlines() for what in _WHAT if line.endswith(what)}
    assert len(columns) == 1
    at = datetime(2026, 11, 22, 12, tzinfo=UTC).astimezone()
    assert f"* {SESSION}  {at:%Y-%m-%d %H:%M}  “hi”\n" in said
    assert talk.out.getvalue() == "user: hi\nassistant (cancelled): par\nAgain.\n"
    assert fake.calls == [*[f"regenerate {REPLY}"] * 2, "create {}"]
    # Sent twice, since the first time the server was busy; counted once.
    assert len(fake.keys) == 2
    assert fake.keys[0] is not None
    assert len(set(fake.keys)) == 1


async def test_an_unknown_command_is_not_posted_and_two_slashes_are_text(fake: FakeApi, talk: Talk) -> None:
    fake.streams = [[finished("completed", "A path.")]]
    await talk.chat.open(None)
    assert await talk.run("/etc", "/open", "/regenerate", "//etc") == 1
    assert [post["content"] for post in fake.posts] == ["/etc"]


async def test_opening_an_ended_session_says_so(fake: FakeApi, talk: Talk) -> None:
    fake.session = session(status="ended", title="Goats")
    await talk.chat.open(SESSION)
    assert "“Goats”" in talk.err.getvalue()
    assert "It has ended" in talk.err.getvalue()
