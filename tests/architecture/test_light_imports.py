"""What is imported where: the API and workflows start fast and hold no model library."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "faiss", "gguf", "openai", "aiobotocore", "ai_edge_litert")
ROOT = Path(__file__).parents[2]


def _loaded_after(module: str) -> set[str]:
    code = f"import {module}, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["api.app", "workflows.chat", "workers.pools", "activities.chat", "goatherd.cli"]
)
def test_no_model_library_is_imported(module: str) -> None:
    assert not _loaded_after(module) & set(HEAVY)


@pytest.mark.parametrize("module", ["api.app", "workflows.chat", "activities.chat"])
def test_no_driver_is_imported(module: str) -> None:
    assert "pymongo" not in _loaded_after(module)


def test_the_command_starts_light() -> None:
    assert not _loaded_after("goatherd.cli") & {"temporalio", "fastapi", "pymongo", "torch"}


def test_every_package_is_installed_by_its_name() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert {"goatherd*", "workflows*", "activities*", "api*", "workers*"} == set(wanted["include"])
