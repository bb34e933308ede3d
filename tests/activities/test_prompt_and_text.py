"""What a model is shown, what of its text is, and how it draws: without a model."""

from __future__ import annotations

import math

import pytest

from activities.backends._text import StopFilter
from activities.backends._window import fit
from goatherd.contracts.inference import ChatTurn
from goatherd.errors import Invalid


def turns(*told: str) -> list[ChatTurn]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [ChatTurn.model_validate({"role": roles[text[0]], "content": text}) for text in told]


def words(kept: list[ChatTurn]) -> int:
    return sum(len(turn.content.split()) for turn in kept)


def shown(*told: str, window: int, reply: int = 0) -> list[str]:
    return [turn.content for turn in fit(turns(*told), count=words, window=window, reply=reply)]


def test_all_turns_are_shown_if_they_fit() -> None:
    assert shown("u1", "a1", "u2", window=3) == ["u1", "a1", "u2"]


def test_question_and_answer_are_left_out_together() -> None:
    assert shown("u1", "a1", "u2", "a2", "u3", window=4) == ["u2", "a2", "u3"]


def test_room_for_the_reply_is_kept() -> None:
    assert shown("u1", "a1", "u2", window=4, reply=2) == ["u2"]


def test_wish_for_a_long_reply_leaves_half_the_window() -> None:
    assert shown("u1", "a1", "u2", "a2", "u3", window=8, reply=1000) == ["u2", "a2", "u3"]


def test_system_turns_stay_and_go_first() -> None:
    assert shown("u1", "s1", "a1", "u2", "s2", window=3) == ["s1\n\ns2", "u2"]


def test_last_turn_stays_though_it_leaves_the_reply_little() -> None:
    assert shown("u1", "a1", "u2 is long", window=4, reply=2) == ["u2 is long"]


def test_last_turn_of_the_assistant_stays_too() -> None:
    assert shown("u1", "a1 is long", window=4, reply=0) == ["u1", "a1 is long"]
    assert shown("u1 is long", "a1 is long", window=5, reply=0) == ["a1 is long"]


def test_last_turn_that_leaves_the_reply_nothing_is_too_long() -> None:
    with pytest.raises(Invalid, match="it is 4 tokens, and the model sees at most 4") as raised:
        shown("s", "u2 is long", window=4, reply=1)
    assert raised.value.code == "too-long"


def filtered(pieces: list[str], *stops: str) -> tuple[list[str], str]:
    stream, out = StopFilter(stops), []
    for piece in pieces:
        text, met = stream.push(piece)
        out.append(text)
        if met:
            return out, ""
    return out, stream.flush()


def test_without_stops_all_passes_at_once() -> None:
    assert filtered(["a", " b"]) == (["a", " b"], "")


def test_stop_over_several_pieces_is_never_shown() -> None:
    assert filtered(["one", " S", "TO", "P two"], " STOP") == (["one", "", "", ""], "")


def test_earliest_of_several_stops_counts() -> None:
    assert filtered(["a b c d"], "d", "c") == (["a b "], "")


def test_what_turned_out_not_to_be_a_stop_is_shown() -> None:
    assert filtered(["x", " S", "T", "ART"], " STOP") == (["x", "", "", " START"], "")


def test_what_may_be_a_stop_is_held_in_whole_pieces() -> None:
    assert filtered(["best", "er"], "stop") == (["", "bester"], "")


def test_held_text_is_there_at_the_end() -> None:
    assert filtered(["go", " S"], " STOP") == (["go", ""], " S")


class TestDraw:
    def test_greedy_nucleus_is_the_likeliest(self) -> None:
        torch = pytest.importorskip("torch")
        from activities.backends._sampling import draw

        scores = torch.tensor([0.0, 3.0, 1.0])
        assert {draw(scores, top_k=0, top_p=0.1, luck=luck) for luck in (0.0, 0.5, 0.999)} == {1}
        assert {draw(scores, top_k=1, top_p=1.0, luck=luck) for luck in (0.0, 0.5, 0.999)} == {1}

    @pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (0, 0.5), (40, 1.0), (40, 0.8)])
    def test_draws_as_often_as_the_library_would(self, top_k: int, top_p: float) -> None:
        torch = pytest.importorskip("torch")
        from transformers import TopKLogitsWarper, TopPLogitsWarper

        from activities.backends._sampling import draw

        scores = torch.randn(3000, generator=torch.Generator().manual_seed(1))
        expected = scores[None]
        if top_k:
            expected = TopKLogitsWarper(top_k)(None, expected)
        if top_p < 1:
            expected = TopPLogitsWarper(top_p)(None, expected)
        expected = expected.softmax(-1)[0]
        draws = 400
        got = torch.zeros(len(scores))
        for n in range(draws):
            got[draw(scores, top_k=top_k, top_p=top_p, luck=(n + 0.5) / draws)] += 1 / draws
        # Luck in even steps: each token is drawn as often as it should be, but for one step.
        assert (got - expected).abs().max() <= 1.5 / draws


class TestSampling:
    """Of a prompt `0 1`, and a reply `2 2 3` so far."""

    @pytest.mark.parametrize(
        ("penalties", "chosen"),
        [
            ({}, 2),
            ({"repetition_penalty": 2.0}, 4),
            ({"frequency_penalty": 0.8}, 3),
            ({"presence_penalty": 1.8}, 0),
            ({"frequency_penalty": 0.8, "presence_penalty": 0.9}, 0),
        ],
    )
    def test_penalties(self, penalties: dict[str, float], chosen: int) -> None:
        torch = pytest.importorskip("torch")
        from activities.backends._sampling import Sampling

        plain = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "seed": 1}
        sampling = Sampling(**(plain | penalties))  # type: ignore[arg-type]
        scores = torch.tensor([2.5, 1.0, 4.0, 3.5, 2.1])
        assert sampling.choose(scores, [0, 1, 2, 2, 3], 3) == chosen
        assert scores[2] == 4.0

    def test_log_probability_is_of_the_scores_as_they_are(self) -> None:
        torch = pytest.importorskip("torch")
        from activities.backends._sampling import log_probability

        scores = torch.tensor([0.1, 0.2, 0.7]).log() + 5
        assert log_probability(scores, 2) == pytest.approx(math.log(0.7))
