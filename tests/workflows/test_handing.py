"""What a session's actor hands to whom: its behavior alone, without Temporal."""

from __future__ import annotations

import pytest

from goatherd.actors.testkit import BehaviorTestKit
from goatherd.contracts.chat import (
    HandOver,
    Posted,
    PostMessage,
    SessionState,
    StartSession,
)
from goatherd.contracts.ids import new_id
from goatherd.errors import SessionEnded, Unavailable
from workflows.chat_flush import Flushing
from workflows.chat_handing import FLUSHERS
from workflows.chat_log import SessionLog
from workflows.chat_session import MOST_UNFLUSHED_BYTES, ChatSessionBehavior, Messages
from workflows.chat_turns import Turns

Kit = BehaviorTestKit[Messages]


def session() -> Kit:
    return BehaviorTestKit(
        ChatSessionBehavior(
            start=StartSession(),
            log=SessionLog(SessionState(session=new_id("chat"))),
            turns=Turns(),
            flushing=Flushing(stored=True),
        )
    )


def post(kit: Kit, flusher: str | None, **fields: object) -> Posted:
    message = PostMessage.model_validate({"content": "hi", "reply": False, "flusher": flusher} | fields)
    return kit.ask(message).answer


def span(handed: Posted) -> tuple[int, int, int]:
    """Which events an answer hands, and what is stored."""
    assert [event.seq for event in handed.events] == list(range(handed.after + 1, handed.upto + 1))
    return handed.after, handed.upto, handed.stored


def test_each_flusher_is_handed_each_event_once() -> None:
    kit = session()
    assert [span(post(kit, who)) for who in ("one", "one", "two", "one", "two")] == [
        (0, 1, 0),
        (1, 2, 0),
        (0, 3, 0),
        (2, 4, 0),
        (3, 5, 0),
    ]


def test_what_is_known_to_be_stored_is_handed_to_nobody() -> None:
    kit = session()
    for _ in range(3):
        post(kit, "one")
    assert span(post(kit, "two", flushed=3)) == (3, 4, 3)
    assert span(post(kit, "one", flushed=2)) == (3, 5, 3)


def test_who_asks_anew_as_another_is_handed_everything() -> None:
    kit = session()
    for _ in range(3):
        post(kit, "one")
    handed = kit.ask(HandOver(flusher="one, anew", flushed=1)).answer
    assert ([event.seq for event in handed.events], handed.stored) == ([2, 3], 1)
    assert span(post(kit, "one, anew")) == (3, 4, 1)


def test_a_repeated_post_says_up_to_where_it_has_to_be_stored() -> None:
    kit = session()
    message = new_id("msg")
    post(kit, "one", id=message)
    again = post(kit, "one", id=message)
    assert (again.duplicate, span(again)) == (True, (1, 1, 0))
    assert span(post(kit, "two", id=message)) == (0, 1, 0)


def test_by_hand_all_is_handed_and_the_actor_writes_it_itself() -> None:
    kit = session()
    post(kit, "one")
    assert span(post(kit, None)) == (0, 2, 0)
    assert kit.behavior.flushing.upto == 2  # type: ignore[attr-defined]


def test_more_flushers_than_are_remembered_cost_repetition_only() -> None:
    kit = session()
    for number in range(FLUSHERS + 1):
        post(kit, f"{number}")
    assert len(kit.behavior.handing.handed) == FLUSHERS  # type: ignore[attr-defined]
    assert span(post(kit, f"{FLUSHERS}")) == (FLUSHERS + 1, FLUSHERS + 2, 0)
    assert span(post(kit, "0")) == (0, FLUSHERS + 3, 0)


def test_a_run_of_another_past_hands_nothing_over() -> None:
    kit = session()
    post(kit, "one")
    refused = kit.ask(HandOver(flusher="one, anew", flushed=7, flushed_event="evt_of_another_past"))
    assert isinstance(refused.error, SessionEnded)


def test_the_actor_writes_too_when_much_waits_and_takes_no_more_when_too_much_does() -> None:
    kit = session()
    text = "x" * 100_000
    behavior = kit.behavior
    assert isinstance(behavior, ChatSessionBehavior)
    while behavior.log.bytes < MOST_UNFLUSHED_BYTES // 2:
        assert behavior.flushing.upto is None
        post(kit, "one", content=text)
    assert behavior.flushing.upto is not None
    while behavior.log.bytes < MOST_UNFLUSHED_BYTES:
        post(kit, "one", content=text)
    with pytest.raises(Unavailable):
        behavior.check(PostMessage(content="hi", reply=False))
    # What is stored after all makes room at once.
    behavior.check(PostMessage(content="hi", reply=False, flushed=behavior.log.last_seq))
