"""What a model is told, besides the text, to summarize or translate it: a prefix, or marks of languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from activities.backends.hf.encoding import Encoder
from goatherd.contracts.inference_tasks import Task, TranslationParameters
from goatherd.contracts.model import Json
from goatherd.errors import Invalid


@dataclass(frozen=True, slots=True)
class Guide:
    """`prefix` stands before the text, `language` is what the tokenizer marks it with, and `generation` is
    what the model's files (or the language that is wished) say about how to generate."""

    prefix: str = ""
    language: str | None = None
    generation: Json = field(default_factory=dict)


def guide(task: Task, text: str, wish: Any, config: Any, encoder: Encoder) -> Guide:
    """By the model's files: `task_specific_params` of its configuration, as T5 has them, and its tokenizer.

    Raises:
        Invalid: the model does not translate so, or has to be told from what or to what.
    """
    known: dict[str, Json] = getattr(config, "task_specific_params", None) or {}
    if task == Task.SUMMARIZATION:
        return _specific(known.get("summarization", {}), text)
    if task != Task.TRANSLATION:
        return Guide()
    assert isinstance(wish, TranslationParameters)
    if hasattr(encoder.tokenizer, "_build_translation_inputs"):
        return _marked(wish, encoder, config)
    pairs = {name: own for name, own in known.items() if name.startswith("translation_")}
    if not pairs and (wish.src_lang or wish.tgt_lang):
        raise Invalid(
            "the model translates between two languages alone: name none",
            pointer="/parameters/" + ("src_lang" if wish.src_lang else "tgt_lang"),
        )
    chosen = [own for name, own in pairs.items() if _fits(name, wish)]
    if "translation" in known and not (wish.src_lang or wish.tgt_lang):
        chosen = [known["translation"]]
    if not pairs and not chosen:
        return Guide()
    if not chosen:
        raise Invalid(f"the model translates only {_named(pairs)}", pointer="/parameters/tgt_lang")
    if len(chosen) > 1:
        # A text that says it itself is taken as it is.
        said = [own for own in chosen if text.startswith(own.get("prefix") or "\0")]
        if not said:
            raise Invalid(
                f"say src_lang and tgt_lang: the model translates {_named(pairs)}",
                pointer="/parameters/tgt_lang",
            )
        chosen = said
    return _specific(chosen[0], text)


def _specific(own: Json, text: str) -> Guide:
    prefix = own.get("prefix") or ""
    rest = {name: value for name, value in own.items() if name != "prefix"}
    return Guide(prefix="" if text.startswith(prefix) else prefix, generation=rest)


def _fits(name: str, wish: TranslationParameters) -> bool:
    source, _, target = name.removeprefix("translation_").partition("_to_")
    return wish.src_lang in (None, source) and wish.tgt_lang in (None, target)


def _named(pairs: dict[str, Json]) -> str:
    return ", ".join(name.removeprefix("translation_").replace("_to_", " to ") for name in pairs)


def _marked(wish: TranslationParameters, encoder: Encoder, config: Any) -> Guide:
    tokens = {}
    for name, language in (("src_lang", wish.src_lang), ("tgt_lang", wish.tgt_lang)):
        if language is not None:
            tokens[name] = encoder.language_token(language)
            if tokens[name] is None:
                raise Invalid(f"the model knows no language {language!r}", pointer=f"/parameters/{name}")
    if wish.tgt_lang is None:
        raise Invalid("say which language to translate to", pointer="/parameters/tgt_lang")
    return Guide(
        language=wish.src_lang or encoder.language, generation={"forced_bos_token_id": tokens["tgt_lang"]}
    )
