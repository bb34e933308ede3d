"""What a scripted model answers, task by task: a function of the input, and plausible in its shape."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import struct
import wave
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from goatherd.contracts.inference_tasks import (
    Answer,
    Box,
    ClassificationParameters,
    Detection,
    DetectionParameters,
    FeatureParameters,
    FilledMask,
    FillMaskParameters,
    GeneratedText,
    LabelScore,
    Media,
    Parameters,
    QuestionAnsweringParameters,
    QuestionInContext,
    Segment,
    SegmentationParameters,
    SentencePairs,
    SpeechRecognitionParameters,
    SpokenChunk,
    SummaryText,
    TableAnswer,
    TableQuestion,
    Task,
    Tensors,
    TextToImageParameters,
    TextToSpeechParameters,
    TokenClass,
    TokenClassificationParameters,
    Transcript,
    TranslationText,
    Vectors,
    ZeroShotParameters,
)
from goatherd.errors import Invalid, UnreadableMedia

_WORD = re.compile(r"\w+")
_MASK = re.compile(r"\[MASK\]|<mask>")
_MOODS = {
    "POSITIVE": ["good", "great", "love", "fine", "nice"],
    "NEGATIVE": ["bad", "awful", "hate", "poor", "sad"],
}
_THINGS = {"goat": ["goat"], "sheep": ["sheep"], "meadow": ["meadow"]}
_FILLINGS = ("goat", "meadow", "mountain", "shepherd", "bell", "hay", "milk", "brook")
_IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
_SOUNDS = (b"RIFF", b"fLaC", b"ID3", b"OggS", b"\xff\xfb", b"\xff\xf3", b"\x1aE\xdf\xa3")
_RATE = 16_000
_SMALL = 8


@dataclass(frozen=True, slots=True)
class Wish:
    """Of the model's options, what outputs depend on."""

    dimensions: int
    labels: Mapping[str, list[str]] | None


Output = Callable[[Any, Any, Wish], Any]


def texts_of(inputs: Any) -> Iterator[str]:
    """All texts of an input."""
    match inputs:
        case str():
            yield inputs
        case QuestionInContext():
            yield from (inputs.question, inputs.context)
        case TableQuestion():
            yield inputs.query
        case SentencePairs():
            yield from (inputs.source_sentence, *inputs.sentences)


def size_of(inputs: Any) -> int:
    """In words; 1 for what is no text."""
    return max(1, sum(len(text.split()) for text in texts_of(inputs)))


# -- text


def _embed(text: str, dimensions: int) -> list[float]:
    """The sum of its words' directions, to length 1: texts that share words are alike."""
    total = [0.0] * dimensions
    for word in _words(text):
        for place, value in enumerate(_direction(word, dimensions)):
            total[place] += value
    return _unit(total)


def _features(text: str, wish: FeatureParameters, model: Wish) -> Vectors:
    words = _words(text)
    size = model.dimensions
    if wish.pooling == "none":
        rows = [_unit(list(_direction(word, size))) for word in words]
        return _vectors(rows, [len(rows), size], len(words))
    vector = _embed(text, size)
    if wish.dimensions is not None:
        if wish.dimensions > size:
            raise Invalid(f"the model has {size} dimensions only", pointer="/parameters/dimensions")
        vector = _unit(vector[: wish.dimensions])
    return _vectors([vector], [len(vector)], len(words))


def _similarity(pairs: SentencePairs, wish: FeatureParameters, model: Wish) -> list[float]:
    source = _embed(pairs.source_sentence, model.dimensions)
    return [
        sum(one * other for one, other in zip(source, _embed(text, model.dimensions), strict=True))
        for text in pairs.sentences
    ]


def _classify(text: str, wish: ClassificationParameters, model: Wish) -> list[LabelScore]:
    said = _words(text)
    found = {
        label: float(sum(said.count(word) for word in words))
        for label, words in (model.labels or _MOODS).items()
    }
    return _ranked(found, wish.top_k, wish.function_to_apply)


def _zero_shot(text: str, wish: ZeroShotParameters, model: Wish) -> list[LabelScore]:
    said = _words(text)
    found = {
        label: 4.0 * sum(word in said for word in _words(label)) - _part(label)
        for label in wish.candidate_labels
    }
    return _ranked(found, None, "sigmoid" if wish.multi_label else "softmax")


def _fill(text: str, wish: FillMaskParameters, model: Wish) -> list[FilledMask] | list[list[FilledMask]]:
    places = list(_MASK.finditer(text))
    if not places:
        raise Invalid("There is no mask in the text: write [MASK].", pointer="/inputs")
    every = [_filled(text, place, wish) for place in places]
    return every[0] if len(every) == 1 else every


def _filled(text: str, place: re.Match[str], wish: FillMaskParameters) -> list[FilledMask]:
    chances = {word: _part(f"{text}:{place.start()}:{word}") for word in wish.targets or _FILLINGS}
    total = sum(chances.values())
    best = sorted(chances, key=lambda word: -chances[word])[: wish.top_k]
    return [
        FilledMask(
            score=chances[word] / total,
            token=_number(word) % 30_000,
            token_str=word,
            sequence=text[: place.start()] + word + text[place.end() :],
        )
        for word in best
    ]


def _answer(asked: QuestionInContext, wish: QuestionAnsweringParameters, model: Wish) -> list[Answer]:
    """Words of the context that are not the question's: the nearer to those that are, the likelier."""
    question = set(_words(asked.question))
    spoken = list(_WORD.finditer(asked.context))
    known = [place for place, word in enumerate(spoken) if word[0].lower() in question]
    able: list[tuple[float, re.Match[str]]] = []
    for place, word in enumerate(spoken):
        if place not in known:
            able.append((1 / (1 + min((abs(place - one) for one in known), default=len(spoken))), word))
    able.sort(key=lambda one: -one[0])
    answers = [
        Answer(answer=word[0], score=score, start=word.start(), end=word.end())
        for score, word in able[: wish.top_k]
    ]
    if not known and wish.handle_impossible_answer:
        return [Answer(answer="", score=1.0, start=0, end=0), *answers][: wish.top_k]
    return answers


def _look_up(asked: TableQuestion, wish: Parameters, model: Wish) -> TableAnswer:
    """The cell of the column that the question names, in the row that has another cell of the question."""
    query = asked.query.lower()
    names = list(asked.table)
    column = max(range(len(names)), key=lambda place: names[place].lower() in query)
    rows = range(len(asked.table[names[0]]))
    row = max(rows, key=lambda place: sum(asked.table[name][place].lower() in query for name in names))
    cell = asked.table[names[column]][row]
    return TableAnswer(answer=cell, coordinates=[(row, column)], cells=[cell], aggregator="NONE")


def _names(text: str, wish: TokenClassificationParameters, model: Wish) -> list[TokenClass]:
    """Words that begin with a capital are names; with an aggregation, neighbors are one."""
    found: list[tuple[int, int]] = [(one.start(), one.end()) for one in re.finditer(r"\b[A-Z]\w*", text)]
    if wish.aggregation_strategy != "none":
        joined: list[tuple[int, int]] = []
        for start, end in found:
            if joined and text[joined[-1][1] : start] == " ":
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return [
            TokenClass(entity_group="NAME", score=0.9, word=text[start:end], start=start, end=end)
            for start, end in joined
        ]
    return [
        TokenClass(entity="B-NAME", score=0.9, index=index, word=text[start:end], start=start, end=end)
        for index, (start, end) in enumerate(found, 1)
    ]


def _summary(text: str, wish: Parameters, model: Wish) -> SummaryText:
    return SummaryText(summary_text=re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0])


def _translation(text: str, wish: Parameters, model: Wish) -> TranslationText:
    return TranslationText(translation_text=text.upper())


def _rewritten(text: str, wish: Parameters, model: Wish) -> GeneratedText:
    return GeneratedText(generated_text=text.upper())


# -- images


def _image(media: Media) -> tuple[int, int]:
    """Its width and height; of others than PNG, the same for all."""
    if not media.data.startswith(_IMAGES):
        raise UnreadableMedia("No image that can be read.", pointer="/inputs")
    if not media.data.startswith(_IMAGES[0]):
        return _SMALL, _SMALL
    try:
        width, height = struct.unpack(">II", media.data[16:24])
    except struct.error:
        raise UnreadableMedia("The image ends within its head.", pointer="/inputs") from None
    return width, height


def _classify_image(media: Media, wish: ClassificationParameters, model: Wish) -> list[LabelScore]:
    _image(media)
    return _guess(media, wish, model)


def _detect(media: Media, wish: DetectionParameters, model: Wish) -> list[Detection]:
    width, height = _image(media)
    if wish.threshold > 0.9:
        return []
    label = next(iter(model.labels or _THINGS))
    box = Box(xmin=width // 4, ymin=height // 4, xmax=width - width // 4, ymax=height - height // 4)
    return [Detection(label=label, score=0.9, box=box)]


def _segment(media: Media, wish: SegmentationParameters, model: Wish) -> list[Segment]:
    width, height = _image(media)
    label = next(iter(model.labels or _THINGS))
    mask = _png(min(width, 4_096), min(height, 4_096), 255, colors=1)
    return [Segment(label=label, score=0.9, mask=base64.b64encode(mask).decode())]


def _draw(text: str, wish: TextToImageParameters, model: Wish) -> Media:
    shade = _number(f"{text}:{wish.seed}:{wish.negative_prompt}") % 256
    return Media(data=_png(wish.width or 64, wish.height or 64, shade, colors=3), mime="image/png")


def _png(width: int, height: int, shade: int, *, colors: int) -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + bytes([shade]) * width * colors
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if colors == 1 else 2, 0, 0, 0)
    return _IMAGES[0] + part(b"IHDR", head) + part(b"IDAT", zlib.compress(row * height)) + part(b"IEND", b"")


# -- sounds


def _seconds(media: Media) -> float:
    if not media.data.startswith(_SOUNDS):
        raise UnreadableMedia("No sound that can be read.", pointer="/inputs")
    if not media.data.startswith(b"RIFF"):
        return 1.0
    try:
        with wave.open(io.BytesIO(media.data)) as sound:
            return float(sound.getnframes() / sound.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError) as error:
        raise UnreadableMedia(f"The sound can't be read: {error}.", pointer="/inputs") from error


def _transcribe(media: Media, wish: SpeechRecognitionParameters, model: Wish) -> Transcript:
    """A word a second."""
    seconds = _seconds(media)
    words = [_FILLINGS[n % len(_FILLINGS)] for n in range(max(1, round(seconds)))]
    chunks = None
    if wish.return_timestamps:
        step = seconds / len(words)
        chunks = [
            SpokenChunk(text=word, timestamp=(n * step, (n + 1) * step)) for n, word in enumerate(words)
        ]
    return Transcript(text=" ".join(words), chunks=chunks, duration_s=seconds, language=wish.language)


def _classify_sound(media: Media, wish: ClassificationParameters, model: Wish) -> list[LabelScore]:
    _seconds(media)
    return _guess(media, wish, model)


def _speak(text: str, wish: TextToSpeechParameters, model: Wish) -> Media:
    """A tone, a tenth of a second for each word."""
    if wish.format not in ("wav", "pcm"):
        raise Invalid("A scripted voice makes wav and pcm only.", pointer="/parameters/format")
    count = int(_RATE * 0.1 * len(text.split()) / wish.speed) or 1
    pitch = 220 + _number(wish.voice or "") % 220
    samples = struct.pack(
        f"<{count}h", *(int(8_000 * math.sin(2 * math.pi * pitch * n / _RATE)) for n in range(count))
    )
    if wish.format == "pcm":
        return Media(data=samples, mime="audio/pcm")
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(_RATE)
        sound.writeframes(samples)
    return Media(data=file.getvalue(), mime="audio/wav")


def _echo(tensors: Tensors, wish: Parameters, model: Wish) -> Tensors:
    return tensors


OUTPUTS: dict[Task, Output] = {
    Task.FEATURE_EXTRACTION: _features,
    Task.SENTENCE_SIMILARITY: _similarity,
    Task.TEXT_CLASSIFICATION: _classify,
    Task.ZERO_SHOT_CLASSIFICATION: _zero_shot,
    Task.FILL_MASK: _fill,
    Task.QUESTION_ANSWERING: _answer,
    Task.TABLE_QUESTION_ANSWERING: _look_up,
    Task.TOKEN_CLASSIFICATION: _names,
    Task.SUMMARIZATION: _summary,
    Task.TRANSLATION: _translation,
    Task.TEXT2TEXT_GENERATION: _rewritten,
    Task.IMAGE_CLASSIFICATION: _classify_image,
    Task.OBJECT_DETECTION: _detect,
    Task.IMAGE_SEGMENTATION: _segment,
    Task.TEXT_TO_IMAGE: _draw,
    Task.AUTOMATIC_SPEECH_RECOGNITION: _transcribe,
    Task.AUDIO_CLASSIFICATION: _classify_sound,
    Task.TEXT_TO_SPEECH: _speak,
    Task.TENSORS: _echo,
}
"""All tasks but those of generated text."""


# -- numbers


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)] or [""]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _part(text: str) -> float:
    """In (0, 1]."""
    return (_number(text) % 10_000 + 1) / 10_000


def _direction(word: str, dimensions: int) -> Iterator[float]:
    digest = hashlib.shake_128(word.encode()).digest(dimensions)
    return ((byte - 127.5) / 127.5 for byte in digest)


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def _vectors(rows: list[list[float]], shape: list[int], tokens: int) -> Vectors:
    values = [value for row in rows for value in row]
    return Vectors(shape=shape, data=struct.pack(f"<{len(values)}f", *values), tokens=tokens)


def _guess(media: Media, wish: ClassificationParameters, model: Wish) -> list[LabelScore]:
    """By the bytes: the same file, the same label."""
    digest = hashlib.sha256(media.data).hexdigest()
    found = {label: 4 * _part(digest + label) for label in model.labels or _THINGS}
    return _ranked(found, wish.top_k, wish.function_to_apply)


def _ranked(found: Mapping[str, float], top_k: int | None, function: str | None) -> list[LabelScore]:
    if function == "none":
        scores = dict(found)
    elif function == "sigmoid":
        scores = {label: 1 / (1 + math.exp(-value)) for label, value in found.items()}
    else:
        total = sum(map(math.exp, found.values()))
        scores = {label: math.exp(value) / total for label, value in found.items()}
    best = sorted(scores, key=lambda label: -scores[label])
    return [LabelScore(label=label, score=scores[label]) for label in best[:top_k]]
