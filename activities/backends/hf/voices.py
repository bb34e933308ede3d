"""Speech from text: `text-to-speech`, by VITS, SpeechT5 and other models of transformers' `text-to-audio`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForTextToSpectrogram,
    AutoModelForTextToWaveform,
    AutoProcessor,
    AutoTokenizer,
)

from activities.backends.hf import loading
from activities.backends.hf.drawing import drawn_from
from activities.backends.hf.speakers import Speakers, vocoder
from activities.backends.hf.together import part_of, pipeline_of
from activities.backends.media.audio import MIMES, Sound, write_sound
from activities.backends.media.tempo import at_speed
from activities.backends.spoken import MOST_CHARS, pieces
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Media, TextToSpeechParameters
from goatherd.errors import GoatherdError, Invalid, Unavailable

# Characters that are spoken in one go: SpeechT5 was trained on up to 600 tokens, which are characters.
_AT_ONCE = 500


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    loading.set_up(context)
    config = part_of(AutoConfig, folder)
    draws = type(config) in AutoModelForTextToSpectrogram._model_mapping
    model = loading.pretrained(
        AutoModelForTextToSpectrogram if draws else AutoModelForTextToWaveform, spec, folder
    )
    sounds = vocoder(name, spec, context).to(model.device, model.dtype).eval() if draws else None
    parts: dict[str, Any] = {"vocoder": sounds}
    if config.model_type in ("vits", "speecht5"):
        parts["tokenizer"] = part_of(AutoTokenizer, folder)
    else:
        parts["processor"] = part_of(AutoProcessor, folder)
    pipe = pipeline_of("text-to-audio", model, **parts)
    modules = [model] if sounds is None else [model, sounds]
    return loading.Loaded(
        loading.memory_of(*modules), {spec.task: VoicesRunner(pipe, Speakers.of(name, spec, model))}
    )


class VoicesRunner:
    """See `BlockingRunner`. Texts are spoken one after the other.

    Together they would not be what they are alone: what comes after a shorter one's end is heard in it, and
    one draw is for all. A text of more than `_AT_ONCE` characters is spoken by sentences.
    """

    def __init__(self, pipe: Any, speakers: Speakers) -> None:
        self._pipe = pipe
        self._speakers = speakers

    def weigh(self, item: Item) -> int:
        return max(1, len(item.inputs))

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        results: list[Result] = []
        for item in items:
            try:
                results.append(self._say(item, cancelled))
            except GoatherdError as error:
                results.append(error)
        return results

    def _say(self, item: Item, cancelled: Event) -> Made:
        import numpy as np

        asked = item.parameters
        assert isinstance(asked, TextToSpeechParameters)
        if len(item.inputs) > MOST_CHARS:
            raise Invalid(
                f"too long: {len(item.inputs):,} characters, and at most {MOST_CHARS:,} are spoken",
                code="too-long",
            )
        options = self._speakers.options(asked.voice)
        if self._vits:
            options["speaking_rate"] = self._pipe.model.speaking_rate * asked.speed
        spoken = []
        with loading.memory_errors_translated(), drawn_from(asked.seed, self._pipe.model.device):
            for piece in pieces(item.inputs, _AT_ONCE):
                if cancelled.is_set():
                    raise Unavailable("cancelled")
                if self._speakable(piece):
                    spoken.append(self._speak(piece, options, asked))
        if not spoken:
            raise Invalid("nothing in the text can be spoken", pointer="/inputs")
        sound = Sound(np.concatenate(spoken), self._pipe.sampling_rate)
        if not self._vits:
            sound = at_speed(sound, asked.speed)
        return Made(Media(data=write_sound(sound, asked.format), mime=MIMES[asked.format]))

    @property
    def _vits(self) -> bool:
        return bool(self._pipe.model.config.model_type == "vits")

    def _speakable(self, text: str) -> bool:
        """Whether the model's tokenizer leaves anything of it: those of VITS drop what they do not know."""
        return self._pipe.tokenizer is None or bool(self._pipe.tokenizer.tokenize(text))

    def _speak(self, text: str, options: dict[str, Any], asked: TextToSpeechParameters) -> Any:
        import numpy as np

        given = asked.generation_parameters
        generation = given.model_dump(exclude_none=True, exclude={"seed"}) if given is not None else {}
        if generation and not self._pipe.model.can_generate():
            raise Invalid("the model does not generate tokens", pointer="/parameters/generation_parameters")
        try:
            with torch.inference_mode():
                made = self._pipe(text, forward_params=options, generate_kwargs=generation)
        except ValueError as error:
            # How transformers refuses parameters, after the checks of ours.
            raise Invalid(str(error).splitlines()[0], pointer="/parameters") from error
        return np.atleast_1d(made["audio"]).reshape(-1).astype(np.float32)
