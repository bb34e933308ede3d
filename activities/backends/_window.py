"""Which turns of a conversation a model is shown."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from goatherd.contracts.inference import ChatTurn
from goatherd.errors import Invalid


def fit(
    turns: Sequence[ChatTurn], *, count: Callable[[list[ChatTurn]], int], window: int, reply: int
) -> list[ChatTurn]:
    """The turns to show: the system's as one in front, then as many of the newest others as fit.

    Args:
        turns: the conversation, oldest first.
        count: tokens of the prompt that some turns make.
        window: tokens that the model can see, prompt and reply together.
        reply: tokens to keep free for the reply; never more than half the window, or a wish for a long
            reply would leave no room for the conversation.

    The oldest exchanges go first, and an answer goes with its question. The last turn stays, whatever room
    that leaves the reply, as long as it is at least one token.

    Raises:
        Invalid: there are no turns, or what has to stay does not fit (`too-long`).
    """
    if not turns:
        raise Invalid("there is nothing to reply to: no turns")
    instructions = "\n\n".join(turn.content for turn in turns if turn.role == "system")
    system = [ChatTurn(role="system", content=instructions)] if instructions else []
    talk = [turn for turn in turns if turn.role != "system"]

    def shown(start: int) -> list[ChatTurn]:
        return system + talk[start:]

    room = window - min(reply, window // 2)
    starts = [0, *(i for i in range(1, len(talk)) if talk[i].role == "user" or i == len(talk) - 1)]
    # The later the start, the fewer the tokens: counting is tokenizing, so count as few as may be.
    first = bisect_left(starts, True, key=lambda start: count(shown(start)) <= room)
    if first < len(starts):
        return shown(starts[first])
    least = shown(starts[-1])
    tokens = count(least)
    if tokens >= window:
        raise Invalid(
            f"the message is too long: with the instructions it is {tokens} tokens, "
            f"and the model sees at most {window}, its reply included",
            code="too-long",
        )
    return least
