"""What the demo's models can be asked: a line of curl for each, and the files that it sends."""

from __future__ import annotations

import asyncio
import json
import os
from array import array
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from math import pi, sin
from pathlib import Path
from shlex import quote
from threading import Event
from typing import Any

from examples.models.demo import prepare
from examples.models.packages import folder_of
from goatherd.contracts.inference_tasks import Task

_JSON = "-H 'content-type: application/json'"
_SPOKEN = "The quick brown fox jumps over the lazy dog."
_A4_HZ, _RATE, _SAMPLES = 440.0, 22_050, 43_844

_SENDS = {
    "whisper-tiny.en": "speech.wav",
    "efficientnet-lite0": "cat.png",
    "faces": "face.png",
    "pitch": "a4.json",
}

# The loudest of the 88 keys of a piano, the lowest of which is MIDI's 21.
_LOUDEST = (
    "python3 -c 'import array, base64, json, sys; "
    'n = array.array("f", base64.b64decode(json.load(sys.stdin)["tensors"]["note"]["data"])); '
    'print("MIDI note", 21 + max(range(88), key=lambda key: sum(n[key::88])))\''
)


def write_sample(name: str, into: Path) -> Path | None:
    """The file that the model's line sends, written if it is not there. None: it sends none.

    Raises:
        NotInstalled: the package that carries it is not there.
    """
    if name not in _SENDS:
        return None
    file = into / "samples" / _SENDS[name]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        # Another process may do the same.
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(_content(file.name, into))
        unfinished.rename(file)
    return file


def _content(file: str, into: Path) -> bytes:
    if file == "speech.wav":
        return _speech(into)
    if file == "a4.json":
        return json.dumps(_tone()).encode()
    photograph = {"cat.png": "chelsea.png", "face.png": "astronaut.png"}[file]
    return (folder_of("skimage", "scikit-image==0.26.0") / "data" / photograph).read_bytes()


def line(name: str, url: str, file: Path | None) -> str:
    """How it is asked, in a shell."""
    at = f"curl -s -w '\\n' {url}/models/{name}"
    sent = f"@{quote(str(file))}"
    match name:
        case "all-minilm-l6-v2":
            asked = {
                "source_sentence": "Goats climb well.",
                "sentences": ["They are good climbers.", "The engine is cold."],
            }
            return f"{at}/pipeline/sentence-similarity {_JSON} -d '{json.dumps({'inputs': asked})}'"
        case "joe-us":
            return f"{at} {_JSON} -d '{json.dumps({'inputs': _SPOKEN})}' -o said.wav"
        case "quire-grammar":
            asked_of = {
                "inputs": "Their going home, and he have two goats.",
                "parameters": {"ignore_labels": ["$KEEP"]},
            }
            return f"{at} {_JSON} -d '{json.dumps(asked_of)}'"
        case "pitch":
            return f"{at} {_JSON} -d {sent} | {_LOUDEST}"
        case "whisper-tiny.en":
            return f"{at} -H 'content-type: audio/wav' --data-binary {sent}"
        case _:
            return f"{at} -H 'content-type: image/png' --data-binary {sent}"


def _speech(into: Path) -> bytes:
    """A sentence, spoken by the demo's voice."""
    from activities.backends.piper import PiperProvider
    from activities.inference_ports import Item, LoadContext, Made
    from goatherd.contracts.inference_tasks import TextToSpeechParameters

    with ThreadPoolExecutor(1) as pool:
        model = PiperProvider().load("joe-us", prepare("joe-us", into), LoadContext(into, pool, threads=1))
        try:
            runner: Any = model.runner(Task.TEXT_TO_SPEECH)
            (made,) = runner.run([Item(_SPOKEN, TextToSpeechParameters(seed=1))], Event())
        finally:
            asyncio.run(model.close())
    if not isinstance(made, Made):
        raise made
    return bytes(made.output.data)


def _tone() -> dict[str, Any]:
    """Two seconds of a concert pitch, as the graph's tensor."""
    wave = array("f", (0.5 * sin(2 * pi * _A4_HZ * at / _RATE) for at in range(_SAMPLES)))
    data = b64encode(wave.tobytes()).decode("ascii")
    tensor = {"dtype": "float32", "shape": [1, _SAMPLES, 1], "data": data}
    return {"inputs": {"tensors": {"input_2": tensor}}}
