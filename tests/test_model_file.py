"""Models of the settings and of their file: what is wrong with them is said, and nothing of it is quoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from goatherd.contracts.inference import ModelSpec
from goatherd.errors import Invalid
from goatherd.model_file import read_models
from goatherd.options import load_settings
from goatherd.settings import Settings

KEY = "sk-somebodys-key"
MODEL = {"provider": "openai", "source": "gpt", "options": {"api_key": KEY}}


def test_key_in_place_of_its_reference_is_refused_in_the_settings() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Settings(models={"m": ModelSpec.model_validate(MODEL)}, model="m")
    assert KEY not in str(caught.value)


def test_key_in_place_of_its_reference_is_refused_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOATHERD_MODELS", json.dumps({"m": MODEL}))
    with pytest.raises(Invalid, match=r"GOATHERD_MODELS is not valid.*api_key") as caught:
        load_settings()
    assert KEY not in caught.value.message


def test_key_in_place_of_its_reference_is_refused_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"m": MODEL}))
    with pytest.raises(ValueError, match=r"at m: .*api_key") as caught:
        read_models(path)
    assert KEY not in str(caught.value)
    with pytest.raises(Invalid, match=r"GOATHERD_MODELS_FILE\) is not valid.*api_key") as told:
        load_settings(models_file=path)
    assert KEY not in told.value.message


def test_reference_to_a_key_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"m": {**MODEL, "options": {"api_key": "file:/run/secrets/key"}}}))
    assert read_models(path)["m"].options == {"api_key": "file:/run/secrets/key"}
