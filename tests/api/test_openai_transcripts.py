from __future__ import annotations

import pytest

from api.openai_transcripts import Span, sentences, spans, srt, verbose, vtt
from goatherd.contracts.inference_tasks import SpokenChunk, Transcript


def chunk(text: str, start: float | None, end: float | None) -> SpokenChunk:
    return SpokenChunk(text=text, timestamp=(start, end))


def test_what_has_no_end_lasts_to_the_next_or_to_the_end_of_the_sound() -> None:
    heard = Transcript(
        text="a b c", chunks=[chunk("a", 0, None), chunk("b", 1, None), chunk("c", None, None)], duration_s=9
    )
    assert [(one.start, one.end) for one in spans(heard)] == [(0, 1), (1, 1), (1, 9)]
    unknown = heard.model_copy(update={"duration_s": None})
    assert spans(unknown)[-1].end == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([Span(0, 1, "Hi."), Span(1, 2, " You"), Span(2, 3, " there")], ["Hi.", " You there"]),
        ([Span(0, 1, "Hi"), Span(2.5, 3, "you")], ["Hi", "you"]),
        ([Span(0, 1, "Hi"), Span(1.5, 3, "you")], ["Hi you"]),
        ([Span(0, 1, '"Hi!"'), Span(1, 3, "he")], ['"Hi!"', "he"]),
        ([], []),
    ],
)
def test_sentences_end_with_a_full_stop_or_a_pause(words: list[Span], expected: list[str]) -> None:
    assert [one.text for one in sentences(words)] == expected


def test_subtitles_can_not_be_broken_by_what_is_said() -> None:
    lines = [Span(3_661.0015, 3_662.9996, " a --> b\n\n<i> & c ")]
    assert srt(lines) == "1\n01:01:01,002 --> 01:01:03,000\na -> b <i> & c\n\n"
    assert vtt(lines) == "WEBVTT\n\n01:01:01.002 --> 01:01:03.000\na -&gt; b &lt;i&gt; &amp; c\n\n"


def test_what_nobody_measured_is_null() -> None:
    told = verbose(
        Transcript(text="Hi."),
        task="transcribe",
        language=None,
        temperature=0,
        segments=[Span(0, 1, "Hi.")],
        words=None,
    )
    assert (told["language"], told["duration"], "usage" in told, "words" in told) == ("und", 1, False, False)
    assert told["segments"][0]["avg_logprob"] is None
    assert told["segments"][0]["compression_ratio"] > 0
