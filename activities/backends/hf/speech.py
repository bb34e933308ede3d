"""What is said in a sound: `automatic-speech-recognition`, by Whisper, CTC and other models of transformers.

Whisper hears a sound of more than its 30 seconds by its own long form, window after window, or in chunks
that overlap if `chunk_length_s` says so. CTC models hear long sounds in chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    StoppingCriteria,
    StoppingCriteriaList,
)

from activities.backends.hf import loading
from activities.backends.hf.drawing import drawn_from
from activities.backends.hf.sound import fills_alike
from activities.backends.hf.together import part_of, pipeline_of
from activities.backends.hf.whisper import Wishes, wishes_of
from activities.backends.media.audio import Sound, peek_s, read_sound
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import SpeechRecognitionParameters, SpokenChunk, Transcript
from goatherd.errors import GoatherdError, Invalid, Unavailable

# What CTC models hear at once of a long sound, and how many chunks of a sound are computed together.
_CHUNK_S = 30.0
_CHUNKS = 8

# Of a second of sound, in what a batch is counted in: Whisper's encoder gives 50 vectors a second.
_PER_S = 50


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    loading.set_up(context)
    config = part_of(AutoConfig, folder)
    writes = type(config) in AutoModelForSpeechSeq2Seq._model_mapping
    model = loading.pretrained(AutoModelForSpeechSeq2Seq if writes else AutoModelForCTC, spec, folder)
    pipe = pipeline_of(
        spec.task,
        model,
        tokenizer=part_of(AutoTokenizer, folder),
        feature_extractor=part_of(AutoFeatureExtractor, folder),
    )
    return loading.Loaded(loading.memory_of(model), {spec.task: SpeechRunner(pipe)})


class _Cancelled(Exception):
    """Nobody waits any more."""


class _Stop(StoppingCriteria):
    """Looked at with each token. Raises: a criterion that only says stop ends one window of many."""

    def __init__(self, cancelled: Event) -> None:
        self._cancelled = cancelled

    def __call__(self, *_: Any, **__: Any) -> Any:
        if self._cancelled.is_set():
            raise _Cancelled
        return False


class SpeechRunner:
    """See `BlockingRunner`. Sounds of one window that are asked for alike are computed together."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._rate = pipe.feature_extractor.sampling_rate
        self._whisper = pipe.type == "seq2seq_whisper"
        self._window_s = pipe.feature_extractor.chunk_length if self._whisper else _CHUNK_S

    def weigh(self, item: Item) -> int:
        seconds = peek_s(item.inputs.data)
        return max(1, int(_PER_S * (max(seconds, self._window_s) if self._whisper else seconds)))

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        results: list[Result] = [Unavailable("cancelled")] * len(items)
        groups: dict[tuple[Any, ...], list[tuple[int, Sound, Wishes]]] = {}
        for place, item in enumerate(items):
            if cancelled.is_set():
                return results
            asked = item.parameters
            assert isinstance(asked, SpeechRecognitionParameters)
            try:
                wishes = wishes_of(self._pipe, asked)
                sound = read_sound(item.inputs.data, self._rate)
            except GoatherdError as error:
                results[place] = error
                continue
            key = (self._together(place, sound, asked), asked.model_dump_json())
            groups.setdefault(key, []).append((place, sound, wishes))
        for group in groups.values():
            made = self._hear([sound for _, sound, _ in group], group[0][2], cancelled)
            for (place, _, _), one in zip(group, made, strict=True):
                results[place] = one
        return results

    def _together(self, place: int, sound: Sound, asked: SpeechRecognitionParameters) -> Any:
        """Equal for sounds that may be computed together: each is then as it is alone."""
        if sound.duration_s > self._window_s or _seed(asked) is not None:
            return ("alone", place)
        if self._whisper or fills_alike(self._pipe.feature_extractor):
            return "window"
        return len(sound.samples)

    def _hear(self, sounds: list[Sound], wishes: Wishes, cancelled: Event) -> list[Result]:
        """Of sounds that all fit one window, or of one sound."""
        long = sounds[0].duration_s > self._window_s
        options: dict[str, Any] = {"batch_size": len(sounds)}
        generation = dict(wishes.generation)
        if self._pipe.model.can_generate():
            generation["stopping_criteria"] = StoppingCriteriaList([_Stop(cancelled)])
            options["generate_kwargs"] = generation
        stamps = wishes.timestamps
        if self._whisper:
            options["return_language"] = wishes.multilingual or None
        if wishes.chunk_s is not None or (long and not self._whisper):
            chunk_s = min(
                wishes.chunk_s or _CHUNK_S, self._window_s if self._whisper else wishes.chunk_s or _CHUNK_S
            )
            options |= {"chunk_length_s": chunk_s, "batch_size": _CHUNKS, "ignore_warning": True}
        elif long and not stamps:
            stamps = True  # Its long form goes from stamp to stamp.
        try:
            with loading.memory_errors_translated(), drawn_from(wishes.seed, self._pipe.model.device):
                heard = self._pipe(
                    [sound.samples for sound in sounds], return_timestamps=stamps or None, **options
                )
        except _Cancelled:
            return [Unavailable("cancelled")] * len(sounds)
        except ValueError as error:
            # How transformers refuses parameters, after the checks of ours.
            return [Invalid(str(error).splitlines()[0], pointer="/parameters")] * len(sounds)
        return [Made(_transcript(one, sound, wishes)) for one, sound in zip(heard, sounds, strict=True)]


def _seed(asked: SpeechRecognitionParameters) -> int | None:
    for given in (asked.generation_parameters, asked.generate_kwargs):
        if given is not None and given.seed is not None:
            return given.seed
    return None


def _transcript(heard: dict[str, Any], sound: Sound, wishes: Wishes) -> Transcript:
    found = heard.get("chunks") or []
    chunks = [
        SpokenChunk(
            text=one["text"], timestamp=tuple(None if at is None else float(at) for at in one["timestamp"])
        )
        for one in found
        if "timestamp" in one
    ]
    language = next((one["language"] for one in found if one.get("language")), None)
    return Transcript(
        text=heard["text"],
        chunks=chunks if wishes.timestamps else None,
        duration_s=round(sound.duration_s, 3),
        language=wishes.language or language,
    )
