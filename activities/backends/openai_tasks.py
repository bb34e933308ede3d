"""The tasks that an API of OpenAI's kind does besides talking: a runner for each."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from openai import AsyncOpenAI

from activities.backends.media.audio import MIMES
from activities.backends.openai_errors import translated
from activities.backends.remote_model import each, refuse
from activities.backends.vectors import Numbers, cosines, packed, shaped, shared
from activities.inference_ports import Item, Made, Result
from goatherd.contracts.inference_tasks import (
    FeatureParameters,
    Media,
    SentencePairs,
    SpeechRecognitionParameters,
    SpokenChunk,
    TextToImageParameters,
    TextToSpeechParameters,
    Transcript,
)
from goatherd.contracts.inference_work import TextUsage
from goatherd.contracts.model import Json
from goatherd.contracts.providers import OpenAIOptions
from goatherd.errors import GoatherdError, Invalid

_MOST_TEXTS = 2_048
"""That one call for embeddings may have."""
_CHARS_A_TOKEN = 4


class Caller:
    """What a runner calls by."""

    def __init__(self, client: AsyncOpenAI, name: str, model: str, options: OpenAIOptions) -> None:
        """`name`: for messages; `model`: as the server knows it."""
        self.client = client
        self.name = name
        self.model = model
        self.options = options


class _Embedder:
    def __init__(self, by: Caller) -> None:
        self._by = by

    async def _vectors(self, texts: Sequence[str], dimensions: int | None) -> tuple[list[Numbers], list[int]]:
        """One for each text, and their tokens: the server counts them all together, so that they are shared
        by length. Raises for all of them if one can't be had."""
        vectors: list[Numbers] = []
        tokens: list[int] = []
        for start in range(0, len(texts), _MOST_TEXTS):
            part = texts[start : start + _MOST_TEXTS]
            body: Json = {"model": self._by.model, "input": part, "encoding_format": "base64"}
            if dimensions is not None:
                body["dimensions"] = dimensions
            with translated(self._by.name, self._by.options):
                answer: Any = await self._by.client.post("/embeddings", cast_to=object, body=body)
            data = sorted(answer["data"], key=lambda one: one["index"])
            if len(data) != len(part):
                raise GoatherdError(f"the server gave {len(data)} vectors for {len(part)} texts")
            vectors += [_numbers(one["embedding"]) for one in data]
            total = (answer.get("usage") or {}).get("prompt_tokens") or 0
            tokens += shared(total, [len(text) for text in part])
        return vectors, tokens


class Features(_Embedder):
    """Embeddings. The server pools them; what is too long it refuses."""

    def weigh(self, item: Item) -> int:
        return len(item.inputs) // _CHARS_A_TOKEN + 1

    async def run(self, items: Sequence[Item]) -> list[Result]:
        results: list[Result | None] = [None] * len(items)
        alike: dict[int | None, list[int]] = {}
        for n, item in enumerate(items):
            wish = item.parameters
            assert isinstance(wish, FeatureParameters)
            try:
                _refuse_pooling(wish)
            except Invalid as error:
                results[n] = error
                continue
            alike.setdefault(wish.dimensions, []).append(n)
        for dimensions, places in alike.items():
            vectors, tokens = await self._vectors([items[n].inputs for n in places], dimensions)
            for n, vector, count in zip(places, vectors, tokens, strict=True):
                wish = items[n].parameters
                assert isinstance(wish, FeatureParameters)
                results[n] = _result(lambda v=vector, w=wish, c=count: _made(v, w, c))  # type: ignore[misc]
        return [one for one in results if one is not None]


def _made(vector: Numbers, wish: FeatureParameters, tokens: int) -> Made:
    return Made(packed(shaped(vector, wish), tokens), usage=TextUsage(input_tokens=tokens))


class Similarities(_Embedder):
    """By the cosine of embeddings."""

    def weigh(self, item: Item) -> int:
        pairs: SentencePairs = item.inputs
        chars = len(pairs.source_sentence) + sum(len(one) for one in pairs.sentences)
        return chars // _CHARS_A_TOKEN + 1

    async def run(self, items: Sequence[Item]) -> list[Result]:
        return await each(items, self._one, most=self._by.options.concurrency)

    async def _one(self, item: Item) -> Made:
        wish, pairs = item.parameters, item.inputs
        assert isinstance(wish, FeatureParameters)
        assert isinstance(pairs, SentencePairs)
        _refuse_pooling(wish)
        vectors, tokens = await self._vectors([pairs.source_sentence, *pairs.sentences], wish.dimensions)
        source, *others = (shaped(vector, wish) for vector in vectors)
        return Made(cosines(source, others), usage=TextUsage(input_tokens=sum(tokens)))


def _refuse_pooling(wish: FeatureParameters) -> None:
    refuse(wish, ("pooling", "prompt_name", "truncation_direction"), "openai")


def _result(make: Callable[[], Made]) -> Result:
    try:
        return make()
    except GoatherdError as error:
        return error


def _numbers(given: str | Sequence[float]) -> Numbers:
    """As base64, which is asked for, or as numbers, which some servers give anyway."""
    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given), dtype="<f4").astype(np.float32, copy=False)
    return np.asarray(given, dtype=np.float32)


class _Single:
    """A call for each item."""

    def __init__(self, by: Caller) -> None:
        self._by = by

    def weigh(self, item: Item) -> int:
        return 1

    async def run(self, items: Sequence[Item]) -> list[Result]:
        return await each(items, self._one, most=self._by.options.concurrency)

    async def _one(self, item: Item) -> Made:
        raise NotImplementedError


class Transcriptions(_Single):
    """Speech to text. Segments and words come as `chunks`, with their times."""

    async def _one(self, item: Item) -> Made:
        wish, sound = item.parameters, item.inputs
        assert isinstance(wish, SpeechRecognitionParameters)
        assert isinstance(sound, Media)
        refuse(wish, ("generation_parameters", "generate_kwargs", "chunk_length_s"), "openai")
        timed = wish.return_timestamps
        if timed == "char":
            raise Invalid(
                "the provider openai times words and segments", pointer="/parameters/return_timestamps"
            )
        translate = wish.task == "translate"
        if translate and (timed == "word" or wish.language):
            wrong = "language" if wish.language else "return_timestamps"
            raise Invalid("the provider openai has none of a translation", pointer=f"/parameters/{wrong}")
        fields: Json = {
            "model": self._by.model,
            "response_format": "verbose_json" if timed else "json",
            "language": wish.language,
            "prompt": wish.prompt,
            "temperature": wish.temperature,
        }
        if timed and not translate:
            fields["timestamp_granularities"] = ["word" if timed == "word" else "segment"]
        with translated(self._by.name, self._by.options):
            answer: Any = await self._by.client.post(
                "/audio/translations" if translate else "/audio/transcriptions",
                cast_to=object,
                body={name: value for name, value in fields.items() if value is not None},
                files={
                    "file": (_file_name(sound.data), sound.data, sound.mime or "application/octet-stream")
                },
                options={"headers": {"Content-Type": "multipart/form-data"}},
            )
        return Made(_transcript(answer, timed), usage=_spent(answer))


def _transcript(answer: Json, timed: bool | Literal["word", "char"]) -> Transcript:
    chunks = None
    if timed:
        found = answer.get("words" if timed == "word" else "segments") or []
        chunks = [
            SpokenChunk(text=one.get("word", one.get("text", "")), timestamp=(one["start"], one["end"]))
            for one in found
        ]
    usage = answer.get("usage") or {}
    duration = answer.get("duration", usage.get("seconds"))
    return Transcript(
        text=answer.get("text", ""),
        chunks=chunks,
        duration_s=None if duration is None else float(duration),
        language=answer.get("language"),
    )


def _spent(answer: Json) -> TextUsage | None:
    usage = answer.get("usage") or {}
    if "input_tokens" not in usage and "output_tokens" not in usage:
        return None
    return TextUsage(
        input_tokens=usage.get("input_tokens") or 0, output_tokens=usage.get("output_tokens") or 0
    )


class Speech(_Single):
    """Text to speech."""

    def weigh(self, item: Item) -> int:
        return len(item.inputs) // _CHARS_A_TOKEN + 1

    async def _one(self, item: Item) -> Made:
        wish = item.parameters
        assert isinstance(wish, TextToSpeechParameters)
        refuse(wish, ("generation_parameters", "seed"), "openai")
        with translated(self._by.name, self._by.options):
            answer = await self._by.client.audio.speech.create(
                model=self._by.model,
                input=item.inputs,
                voice=wish.voice or self._by.options.voice,
                response_format=wish.format,
                speed=wish.speed,
            )
            data = await answer.aread()
        return Made(Media(data=data, mime=MIMES[wish.format]))


class Images(_Single):
    """Text to images, one for each text."""

    async def _one(self, item: Item) -> Made:
        wish = item.parameters
        assert isinstance(wish, TextToImageParameters)
        refuse(
            wish, ("guidance_scale", "negative_prompt", "num_inference_steps", "scheduler", "seed"), "openai"
        )
        body: Json = {"model": self._by.model, "prompt": item.inputs, "n": 1}
        if wish.width or wish.height:
            if not (wish.width and wish.height):
                raise Invalid("width and height go together", pointer="/parameters/width")
            body["size"] = f"{wish.width}x{wish.height}"
        # OpenAI's newer models always give the image itself, and don't know the wish for it.
        if not self._by.model.rpartition("/")[2].startswith("gpt-image"):
            body["response_format"] = "b64_json"
        with translated(self._by.name, self._by.options):
            answer: Any = await self._by.client.post("/images/generations", cast_to=object, body=body)
        image = answer["data"][0]
        if not image.get("b64_json"):
            raise GoatherdError(f"model {self._by.name!r}: the server gave no image but an address of one")
        data = base64.b64decode(image["b64_json"])
        return Made(Media(data=data, mime=_image_mime(data)), usage=_spent(answer))


_SOUNDS: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (4, b"ftyp", "m4a"),
    (0, b"\x1aE\xdf\xa3", "webm"),
)
_IMAGES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (8, b"WEBP", "image/webp"),
    (0, b"<svg", "image/svg+xml"),
)


def _file_name(data: bytes) -> str:
    """OpenAI goes by a name's ending."""
    return f"sound.{_sign(data, _SOUNDS) or 'mp3'}"


def _image_mime(data: bytes) -> str:
    return _sign(data, _IMAGES) or "image/png"


def _sign(data: bytes, signs: Sequence[tuple[int, bytes, str]]) -> str | None:
    return next((name for at, sign, name in signs if data[at : at + len(sign)] == sign), None)
