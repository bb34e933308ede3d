"""Deltas of a message: put together they are the whole, and what is missing makes it whole."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goatherd.contracts.deltas import merge, missing


def begun(index: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": function}]}


PIECES: list[dict[str, Any]] = [
    {"reasoning": "Let me "},
    {"reasoning": "see."},
    begun(0, "f", "{"),
    {"tool_calls": [{"index": 0, "function": {"arguments": '"a": 1}'}}]},
    {
        "tool_calls": [
            {"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": ""}}
        ]
    },
    {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}], "refusal": "no"},
    {"logprobs": {"content": [{"token": "a"}]}},
    {"logprobs": {"content": [{"token": "b"}]}},
]


def put_together(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for piece in pieces:
        merge(whole, piece)
    return whole


def test_pieces_make_the_whole() -> None:
    whole = put_together(PIECES)
    assert whole["reasoning"] == "Let me see."
    assert [call["function"]["arguments"] for call in whole["tool_calls"]] == ['{"a": 1}', "{}"]
    assert whole["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}


@pytest.mark.parametrize("shown", range(len(PIECES) + 1))
def test_what_is_missing_makes_what_was_shown_the_whole(shown: int) -> None:
    whole = put_together(PIECES)
    so_far = put_together(PIECES[:shown])
    merge(so_far, missing(whole, so_far))
    assert so_far == whole


def test_nothing_is_missing_of_the_whole() -> None:
    assert missing(put_together(PIECES), put_together(PIECES)) == {}


def test_what_was_shown_wrongly_is_not_gone_on_with() -> None:
    assert missing({"reasoning": "Let me see."}, {"reasoning": "I see"}) == {}


@given(st.text(), st.text())
def test_texts_are_told_to_their_end(shown: str, rest: str) -> None:
    so_far = {"x": shown}
    merge(so_far, missing({"x": shown + rest}, so_far))
    assert so_far == {"x": shown + rest}
