"""Whose voice a model speaks with: the numbers or vectors of its speakers, and SpeechT5's vocoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from activities.backends.hf import loading
from activities.backends.model_sources import local_place, prepare
from activities.inference_ports import LoadContext
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.providers import HuggingFaceOptions, read_options
from goatherd.errors import Invalid


@dataclass(frozen=True, slots=True)
class Speakers:
    count: int = 1
    vectors: dict[str, Any] | None = None

    @classmethod
    def of(cls, name: str, spec: ModelSpec, model: Any) -> Speakers:
        """Raises ValueError if a model that needs vectors has none."""
        if model.config.model_type != "speecht5":
            return cls(count=getattr(model.config, "num_speakers", 1) or 1)
        from safetensors.torch import load_file

        file = read_options(HuggingFaceOptions, spec).voices
        if file is None:
            raise ValueError(
                "SpeechT5 speaks with a speaker's vector: set the option `voices` to a safetensors file that "
                f"has one of {model.config.speaker_embedding_dim} numbers for each voice"
            )
        vectors = {
            voice: vector.reshape(1, -1).to(model.device, model.dtype)
            for voice, vector in load_file(local_place(name, spec, file)).items()
        }
        for voice, vector in vectors.items():
            if vector.shape[1] != model.config.speaker_embedding_dim:
                raise ValueError(f"voice {voice!r} of {file} has {vector.shape[1]} numbers")
        return cls(count=len(vectors), vectors=dict(sorted(vectors.items())))

    def options(self, voice: str | None) -> dict[str, Any]:
        """For the model's forward step. The first voice if none is named.

        Raises:
            Invalid: there is none of that name.
        """
        if self.vectors is not None:
            first = next(iter(self.vectors))
            vector = self.vectors.get(first if voice in (None, "default") else str(voice))
            if vector is None:
                raise self._unknown(voice, ", ".join([*self.vectors][:20]))
            return {"speaker_embeddings": vector}
        if voice in (None, "default"):
            return {"speaker_id": 0} if self.count > 1 else {}
        if self.count > 1 and voice is not None and voice.isdecimal() and int(voice) < self.count:
            return {"speaker_id": int(voice)}
        raise self._unknown(voice, f"0 to {self.count - 1}" if self.count > 1 else "default")

    def _unknown(self, voice: str | None, known: str) -> Invalid:
        return Invalid(f"there is no voice {voice!r}, but {known}", pointer="/parameters/voice")


def vocoder(name: str, spec: ModelSpec, context: LoadContext) -> Any:
    """SpeechT5's HiFi-GAN, of the option's source or the one it was published with."""
    from transformers import SpeechT5HifiGan

    source = read_options(HuggingFaceOptions, spec).vocoder
    other = spec.model_copy(update={"source": source, "revision": None})
    folder = prepare(name, other, context.cache, context.progress)
    return loading.pretrained(SpeechT5HifiGan, other, folder)
