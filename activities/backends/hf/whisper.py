"""What a caller asks of a speech model, as transformers' pipeline takes it, checked by what the model can."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from goatherd.contracts.inference_tasks import SpeechRecognitionParameters
from goatherd.errors import Invalid


@dataclass(frozen=True, slots=True)
class Wishes:
    timestamps: bool | Literal["word", "char"] = False
    chunk_s: float | None = None
    language: str | None = None
    """By its English name, if it is asked for or the model has one only."""
    multilingual: bool = False
    seed: int | None = None
    generation: dict[str, Any] = field(default_factory=dict)
    """For the model's `generate`."""


def wishes_of(pipe: Any, asked: SpeechRecognitionParameters) -> Wishes:
    """Raises `Invalid` for what the model can't do."""
    if pipe.type != "seq2seq_whisper":
        _refuse(pipe, asked)
    elif asked.return_timestamps == "char":
        raise Invalid("Whisper has no timestamps of characters", pointer="/parameters/return_timestamps")
    generation: dict[str, Any] = {}
    for given in (asked.generate_kwargs, asked.generation_parameters):
        generation |= given.model_dump(exclude_none=True) if given is not None else {}
    seed = generation.pop("seed", None)
    if asked.temperature is not None:
        generation["do_sample"] = asked.temperature > 0
        if asked.temperature > 0:
            generation["temperature"] = asked.temperature
    language, multilingual = None, False
    if pipe.type == "seq2seq_whisper":
        multilingual = bool(getattr(pipe.model.generation_config, "is_multilingual", True))
        language = _language(pipe, asked, multilingual)
        if multilingual:
            generation |= {"task": asked.task or "transcribe"}
            generation |= {"language": language} if language else {}
        if asked.prompt:
            generation["prompt_ids"] = _prompt(pipe, asked.prompt)
    return Wishes(
        timestamps=asked.return_timestamps,
        chunk_s=asked.chunk_length_s,
        language=language,
        multilingual=multilingual,
        seed=seed,
        generation=generation,
    )


def _refuse(pipe: Any, asked: SpeechRecognitionParameters) -> None:
    """What only Whisper does."""
    for name in ("language", "task", "prompt"):
        if getattr(asked, name) is not None:
            raise Invalid(f"the model has no {name}", pointer=f"/parameters/{name}")
    if pipe.type != "ctc":
        if asked.return_timestamps:
            raise Invalid("the model has no timestamps", pointer="/parameters/return_timestamps")
        return
    if asked.return_timestamps is True:
        raise Invalid(
            "the model has timestamps of words (`word`) and characters (`char`)",
            pointer="/parameters/return_timestamps",
        )
    for name in ("temperature", "generation_parameters", "generate_kwargs"):
        if getattr(asked, name) is not None:
            raise Invalid(f"the model does not generate: it has no {name}", pointer=f"/parameters/{name}")


def _language(pipe: Any, asked: SpeechRecognitionParameters, multilingual: bool) -> str | None:
    """By its name. Raises `Invalid` unless the model knows it."""
    wish = asked.language.strip().lower() if asked.language is not None else None
    name = LANGUAGES.get(wish or "", wish)
    if not multilingual:
        if name not in (None, "english"):
            raise Invalid("the model knows English only", pointer="/parameters/language")
        if asked.task == "translate":
            raise Invalid(
                "to `translate` needs a model of several languages, and this one knows English only",
                pointer="/parameters/task",
            )
        return "english"
    if name is None:
        return None
    code = TO_LANGUAGE_CODE.get(name)
    if code is None or f"<|{code}|>" not in getattr(pipe.model.generation_config, "lang_to_id", {}):
        raise Invalid(f"the model knows no language {asked.language!r}", pointer="/parameters/language")
    return name


def _prompt(pipe: Any, prompt: str) -> Any:
    """Its last tokens, as many as fit: half of the model's window, where the text goes into the other."""
    try:
        ids = pipe.tokenizer.get_prompt_ids(prompt, return_tensors="pt")
    except ValueError as error:
        raise Invalid(f"prompt: {error}", pointer="/parameters/prompt") from error
    most = pipe.model.config.max_target_positions // 2 - 1
    if len(ids) > most:
        ids = ids[[0, *range(len(ids) - most + 1, len(ids))]]
    return ids.to(pipe.model.device)
