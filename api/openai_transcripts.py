"""What was said, as OpenAI's clients want it: JSON, text, or subtitles.

Source of the formats: openai 3.54, `types/audio/transcription_verbose.py`; SubRip; WebVTT (W3C).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from goatherd.contracts.inference_tasks import Transcript
from goatherd.contracts.model import Json

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_ENDS = re.compile(r"[.?!…。？！]['\"”’)]*$")
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Span:
    """A word or a sentence, and the seconds from when to when."""

    start: float
    end: float
    text: str


def spans(transcript: Transcript) -> list[Span]:
    """Its chunks. One that has no end lasts to the next, or to the end of the sound."""
    chunks = transcript.chunks or []
    found: list[Span] = []
    for index, chunk in enumerate(chunks):
        start = chunk.timestamp[0] if chunk.timestamp[0] is not None else (found[-1].end if found else 0.0)
        end = chunk.timestamp[1]
        if end is None:
            following = chunks[index + 1].timestamp[0] if index + 1 < len(chunks) else transcript.duration_s
            end = following if following is not None else start
        found.append(Span(start, max(start, end), chunk.text))
    return found


def sentences(words: Iterable[Span]) -> list[Span]:
    """Words as sentences: up to a full stop, or a pause of a second."""
    found: list[Span] = []
    open_span: Span | None = None
    for word in words:
        if open_span is not None and word.start - open_span.end > _PAUSE_S:
            found.append(open_span)
            open_span = None
        if open_span is None:
            open_span = word
        else:
            gap = "" if word.text[:1].isspace() or open_span.text[-1:].isspace() else " "
            open_span = Span(open_span.start, word.end, f"{open_span.text}{gap}{word.text}")
        if _ENDS.search(open_span.text.rstrip()):
            found.append(open_span)
            open_span = None
    return found if open_span is None else [*found, open_span]


def plain(transcript: Transcript) -> Json:
    answer: Json = {"text": transcript.text}
    if transcript.duration_s is not None:
        answer["usage"] = {"type": "duration", "seconds": transcript.duration_s}
    return answer


def verbose(
    transcript: Transcript,
    *,
    task: str,
    language: str | None,
    temperature: float,
    segments: Sequence[Span] | None,
    words: Sequence[Span] | None,
) -> Json:
    """What nobody measured is null. A language that nobody named is `und` (ISO 639)."""
    timed = segments or words or ()
    duration = transcript.duration_s
    if duration is None:
        duration = timed[-1].end if timed else 0.0
    answer: Json = {
        "task": task,
        "language": transcript.language or language or "und",
        "duration": duration,
        "text": transcript.text,
    }
    if segments is not None:
        answer["segments"] = [_segment(index, one, temperature) for index, one in enumerate(segments)]
    if words is not None:
        answer["words"] = [{"word": one.text.strip(), "start": one.start, "end": one.end} for one in words]
    if transcript.duration_s is not None:
        answer["usage"] = {"type": "duration", "seconds": transcript.duration_s}
    return answer


def _segment(index: int, span: Span, temperature: float) -> Json:
    data = span.text.encode()
    return {
        "id": index,
        "seek": 0,
        "start": span.start,
        "end": span.end,
        "text": span.text,
        "tokens": [],
        "temperature": temperature,
        "avg_logprob": None,
        "compression_ratio": len(data) / len(zlib.compress(data)),
        "no_speech_prob": None,
    }


def srt(lines: Sequence[Span]) -> str:
    return "".join(
        f"{number}\n{_clock(one.start, ',')} --> {_clock(one.end, ',')}\n{_line(one)}\n\n"
        for number, one in enumerate(lines, 1)
    )


def vtt(lines: Sequence[Span]) -> str:
    cues = (
        f"{_clock(one.start, '.')} --> {_clock(one.end, '.')}\n{escape(_line(one), quote=False)}\n\n"
        for one in lines
    )
    return "WEBVTT\n\n" + "".join(cues)


def _line(span: Span) -> str:
    # An arrow or an empty line would end the cue.
    return " ".join(span.text.split()).replace("-->", "->")


def _clock(seconds: float, point: str) -> str:
    millis = round(seconds * 1_000)
    hours, rest = divmod(millis, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02d}:{minutes:02d}:{rest // 1_000:02d}{point}{rest % 1_000:03d}"
