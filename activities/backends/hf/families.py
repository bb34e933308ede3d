"""Which function loads a model for which task: named here, imported only when one is loaded.

Each is `load(name, spec, folder, context) -> LoadedModel`. It serves the spec's task and all that follow from
it (`tasks_of`), and raises whatever the model's files make torch and transformers raise.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from activities.inference_ports import LoadContext, LoadedModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task

Load = Callable[[str, ModelSpec, Path, LoadContext], LoadedModel]

_HF = "activities.backends.hf"

FAMILIES: dict[Task, str] = {
    Task.FILL_MASK: f"{_HF}.fill_mask:load",
    Task.TEXT_CLASSIFICATION: f"{_HF}.text_classes:load",
    Task.ZERO_SHOT_CLASSIFICATION: f"{_HF}.text_classes:load",
    Task.TOKEN_CLASSIFICATION: f"{_HF}.token_classes:load",
    Task.QUESTION_ANSWERING: f"{_HF}.question_answering:load",
    Task.TABLE_QUESTION_ANSWERING: f"{_HF}.tables:load",
    Task.FEATURE_EXTRACTION: f"{_HF}.embeddings:load",
    Task.SENTENCE_SIMILARITY: f"{_HF}.embeddings:load",
    Task.SUMMARIZATION: f"{_HF}.seq2seq:load",
    Task.TRANSLATION: f"{_HF}.seq2seq:load",
    Task.TEXT2TEXT_GENERATION: f"{_HF}.seq2seq:load",
    Task.CONVERSATIONAL: f"{_HF}.talk:load",
    Task.TEXT_GENERATION: f"{_HF}.talk:load",
    Task.IMAGE_CLASSIFICATION: f"{_HF}.vision:load",
    Task.OBJECT_DETECTION: f"{_HF}.vision:load",
    Task.IMAGE_SEGMENTATION: f"{_HF}.vision:load",
    Task.TEXT_TO_IMAGE: f"{_HF}.diffusion:load",
    Task.AUTOMATIC_SPEECH_RECOGNITION: f"{_HF}.speech:load",
    Task.TEXT_TO_SPEECH: f"{_HF}.voices:load",
    Task.AUDIO_CLASSIFICATION: f"{_HF}.sound:load",
}


def family(task: Task) -> Load:
    """The function that loads models of this task. Heavy: it imports what the family needs."""
    module, function = FAMILIES[task].split(":")
    load: Load = getattr(import_module(module), function)
    return load
