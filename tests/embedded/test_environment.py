"""Settings reach a child unchanged, by its environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from goatherd.contracts.inference import Generation, ModelSpec
from goatherd.embedded._environment import environment
from goatherd.settings import Settings


def test_a_child_has_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Stale ones, of which None and the other case are the hard ones.
    monkeypatch.setenv("GOATHERD_TORCH_THREADS", "7")
    monkeypatch.setenv("goatherd_port", "1")
    settings = Settings(
        host="::1",
        port=1234,
        data=tmp_path / "a folder",
        temporal="127.0.0.1:7233",
        temporal_api_key="s3cret with spaces and 'quotes'",
        mongo_uri="mongodb://u:p@h/",
        models={"m": ModelSpec(provider="scripted", generation=Generation(stop=["\n"], seed=3))},
        model="m",
        preload=False,
        torch_threads=None,
        allowed_origins=["https://a", "https://b"],
    )
    show = "from goatherd.settings import Settings; print(Settings().model_dump_json())"
    env = environment(settings)
    shown = subprocess.run([sys.executable, "-c", show], env=env, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout) == settings.model_dump(mode="json")
    assert env["PATH"] == os.environ["PATH"]
