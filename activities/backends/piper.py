"""`Provider` of Piper's voices: speech by small VITS models in ONNX, several times faster than it is heard.

A voice is `NAME.onnx` with `NAME.onnx.json` beside it, as Piper's voices are published. Source of the form:
Piper's `voice.py`: the tensors' names, and a sentence as `^ _ p _ h _ … $` of its phonemes' numbers.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Lock
from typing import Any

from activities.backends.model_sources import (
    broken,
    local_place,
    package_folder,
    reading,
    unavailable,
    unusable,
)
from activities.backends.phonemes import Phonemizer
from activities.backends.spoken import MOST_CHARS
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result, Runner
from activities.ports import ChatModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Media, Task, TextToSpeechParameters
from goatherd.contracts.providers import PiperOptions, read_options
from goatherd.errors import GoatherdError, Invalid, Unavailable, WrongTask

_PACKAGE = "package:"

# onnxruntime has one seed for the process, which a session takes when it is made.
_seeding = Lock()


class PiperProvider:
    def check(self, name: str, spec: ModelSpec) -> None:
        if spec.task != Task.TEXT_TO_SPEECH:
            raise WrongTask(f"model {name!r}: the provider piper is for {Task.TEXT_TO_SPEECH} only")
        if not spec.source:
            raise Invalid(f"model {name!r} has no source", pointer="/source")
        if spec.device not in ("auto", "cpu"):
            raise Invalid(f"model {name!r}: Piper's voices run on the CPU", pointer="/device")
        read_options(PiperOptions, spec)

    def prepare(self, name: str, spec: ModelSpec, context: LoadContext) -> None:
        _voice(name, spec)

    def estimate(self, name: str, spec: ModelSpec, context: LoadContext) -> int:
        return _voice(name, spec).stat().st_size

    def load(self, name: str, spec: ModelSpec, context: LoadContext) -> LoadedModel:
        self.check(name, spec)
        file = _voice(name, spec)
        phonemizer = Phonemizer()
        try:
            runner = VoiceRunner(file, phonemizer, context.threads)
            phonemizer.sentences(runner.language, "a")
        except ImportError as error:
            raise broken(name, f"{error.name} is not installed", "install goatherd[speech]") from error
        except GoatherdError as error:
            phonemizer.close()
            why = unavailable if error.retryable else broken
            raise why(name, error.message, "see its files") from error
        except Exception as error:
            phonemizer.close()
            raise unusable(name, error, f"{file} can't be loaded ({error})", "check its files") from error
        return _Voice(runner, phonemizer, file.stat().st_size)


def _voice(name: str, spec: ModelSpec) -> Path:
    """The voice's ONNX file. Raises `ModelBroken`, `Unavailable`."""
    with reading(name, spec):
        return _found(name, spec)


def _found(name: str, spec: ModelSpec) -> Path:
    if spec.source.startswith(_PACKAGE):
        place = package_folder(name, spec.source.removeprefix(_PACKAGE))
    else:
        place = local_place(name, spec, spec.source)
    files = [place] if place.suffix == ".onnx" else sorted(place.rglob("*.onnx"))
    files = [file for file in files if file.is_file() and _config(file).is_file()]
    if len(files) != 1:
        raise broken(
            name,
            f"{spec.source!r} has {len(files)} voices (NAME.onnx with NAME.onnx.json), not one",
            "set its source to the voice's file or folder",
        )
    return files[0]


def _config(file: Path) -> Path:
    return file.with_name(file.name + ".json")


class VoiceRunner:
    """See `BlockingRunner`. One text after the other: each already takes all cores, and the voice does not
    say how long each of several is."""

    def __init__(self, file: Path, phonemizer: Phonemizer, threads: int | None) -> None:
        config: dict[str, Any] = json.loads(_config(file).read_text(encoding="utf-8"))
        self.language: str = config["espeak"]["voice"]
        if config.get("phoneme_type", "espeak") != "espeak":
            raise ValueError(f"its phonemes are of type {config['phoneme_type']!r}, not eSpeak's")
        self._rate: int = config["audio"]["sample_rate"]
        self._ids: dict[str, list[int]] = config["phoneme_id_map"]
        self._said: dict[str, Any] = config.get("inference", {})
        self._speakers: dict[str, int] = config.get("speaker_id_map") or {}
        self._count: int = config.get("num_speakers", 1)
        self._file = file
        self._threads = threads
        self._phonemizer = phonemizer
        self._session = self._open(None)

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

        from activities.backends.media.audio import MIMES, Sound, write_sound

        asked = item.parameters
        assert isinstance(asked, TextToSpeechParameters)
        if asked.generation_parameters is not None:
            raise Invalid("the voice does not generate tokens", pointer="/parameters/generation_parameters")
        if len(item.inputs) > MOST_CHARS:
            raise Invalid(
                f"too long: {len(item.inputs):,} characters, and at most {MOST_CHARS:,} are spoken",
                code="too-long",
            )
        speaker = self._speaker(asked.voice)
        sentences = [self._numbers(one) for one in self._phonemizer.sentences(self.language, item.inputs)]
        if not any(sentences):
            raise Invalid("nothing in the text can be spoken", pointer="/inputs")
        session = self._session if asked.seed is None else self._open(asked.seed)
        spoken = []
        for numbers in filter(None, sentences):
            if cancelled.is_set():
                raise Unavailable("cancelled")
            spoken.append(self._compute(session, numbers, asked.speed, speaker))
        samples = np.concatenate(spoken)
        # As loud as it goes: voices differ in what they give.
        samples /= max(0.01, float(np.abs(samples).max()))
        data = write_sound(Sound(samples, self._rate), asked.format)
        return Made(Media(data=data, mime=MIMES[asked.format]))

    def _speaker(self, voice: str | None) -> int | None:
        """Its number, if the model has several."""
        if self._count <= 1:
            if voice in (None, "default", self._file.stem):
                return None
            known = [self._file.stem]
        else:
            if voice in (None, "default"):
                return 0
            if voice in self._speakers:
                return self._speakers[voice]
            if voice.isdecimal() and int(voice) < self._count:
                return int(voice)
            known = [*self._speakers][:20] or [f"0 to {self._count - 1}"]
        raise Invalid(f"there is no voice {voice!r}, but {', '.join(known)}", pointer="/parameters/voice")

    def _numbers(self, sentence: list[str]) -> list[int]:
        """Those of a sentence's phonemes; nothing if the model knows none of them."""
        pad = self._ids["_"]
        known = [number for one in sentence for number in (*self._ids.get(one, ()), *pad) if one in self._ids]
        return [*self._ids["^"], *pad, *known, *self._ids["$"]] if known else []

    def _compute(self, session: Any, numbers: list[int], speed: float, speaker: int | None) -> Any:
        import numpy as np

        inputs: dict[str, Any] = {
            "input": np.array([numbers], dtype=np.int64),
            "input_lengths": np.array([len(numbers)], dtype=np.int64),
            "scales": np.array(
                [
                    self._said.get("noise_scale", 0.667),
                    self._said.get("length_scale", 1.0) / speed,
                    self._said.get("noise_w", 0.8),
                ],
                dtype=np.float32,
            ),
        }
        if speaker is not None:
            inputs["sid"] = np.array([speaker], dtype=np.int64)
        return session.run(None, inputs)[0].reshape(-1)

    def _open(self, seed: int | None) -> Any:
        """A session. What it draws is decided when it is made, so a seed has one of its own."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Threads that wait should not burn a core that other models compute on.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._threads:
            options.intra_op_num_threads = self._threads
        with _seeding:
            onnxruntime.set_seed(secrets.randbits(31) if seed is None else seed % 2**31)
            return onnxruntime.InferenceSession(str(self._file), options, providers=["CPUExecutionProvider"])


class _Voice:
    """See `LoadedModel`."""

    def __init__(self, runner: VoiceRunner, phonemizer: Phonemizer, memory_bytes: int) -> None:
        self._runner = runner
        self._phonemizer = phonemizer
        self.memory_bytes = memory_bytes
        self.tasks = [Task.TEXT_TO_SPEECH]
        self.chat: ChatModel | None = None

    def runner(self, task: Task) -> Runner:
        if task != Task.TEXT_TO_SPEECH:
            raise WrongTask(f"the model is for {Task.TEXT_TO_SPEECH}, not for {task}")
        return self._runner

    async def close(self) -> None:
        self._phonemizer.close()
