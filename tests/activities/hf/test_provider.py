"""What the provider says of specs and folders before and while it loads them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import torch

from activities.backends.hf.families import FAMILIES
from activities.backends.hf.provider import HuggingFaceProvider
from activities.inference_ports import Provider
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import MODEL_TASKS, Task
from goatherd.errors import Invalid, ModelBroken, WrongTask
from tests.activities.hf.text_calls import context, load

PROVIDER = cast(Provider, HuggingFaceProvider())


def test_it_has_every_task_but_bare_tensors() -> None:
    assert set(FAMILIES) == set(MODEL_TASKS) - {Task.TENSORS}


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (ModelSpec(source="a/b", task=Task.TENSORS), WrongTask),
        (ModelSpec(task=Task.FILL_MASK), Invalid),
        (ModelSpec(source="a/b", device="abacus"), Invalid),
    ],
)
def test_specs_that_cannot_be_right_are_refused(spec: ModelSpec, error: type[Exception]) -> None:
    with pytest.raises(error):
        PROVIDER.check("m", spec)
    PROVIDER.check("m", ModelSpec(source="a/b", device="cuda:1"))


def test_it_is_light_until_it_loads() -> None:
    code = (
        "import sys; from activities.backends.hf.provider import HuggingFaceProvider as P; "
        "from goatherd.contracts.inference import ModelSpec; P().check('m', ModelSpec(source='a/b')); "
        "assert not {'torch', 'transformers', 'numpy', 'pandas'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("auto", 4)])
def test_estimate_is_what_it_takes(tiny: dict[str, Path], dtype: str, width: int) -> None:
    spec = ModelSpec.model_validate(
        {"source": str(tiny["sentiment"]), "task": "text-classification", "dtype": dtype, "device": "cpu"}
    )
    estimate = PROVIDER.estimate("m", spec, context())
    loaded = PROVIDER.load("m", spec, context())
    # Positions are a buffer of the model, and in no file.
    assert estimate <= loaded.memory_bytes <= estimate + 8 * 1024
    assert estimate % width == 0


def test_a_task_that_the_model_is_not_for_is_wrong(tiny: dict[str, Path]) -> None:
    loaded = load(tiny["sentiment"], Task.TEXT_CLASSIFICATION)
    assert loaded.chat is None
    with pytest.raises(WrongTask, match="is for text-classification"):
        loaded.runner(Task.FILL_MASK)


async def test_closed_it_holds_nothing(tiny: dict[str, Path]) -> None:
    loaded = load(tiny["sentiment"], Task.TEXT_CLASSIFICATION)
    await loaded.close()
    assert list(loaded.tasks) == []


@pytest.mark.parametrize("what", ["nothing", "no model", "broken weights"])
def test_what_keeps_it_from_loading_is_said(tmp_path: Path, tiny: dict[str, Path], what: str) -> None:
    folder = tmp_path / "model"
    if what != "nothing":
        folder.mkdir()
        for file in tiny["sentiment"].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        broken = {"no model": "config.json", "broken weights": "model.safetensors"}[what]
        (folder / broken).write_bytes(b"{}")
    with pytest.raises(ModelBroken, match="'tested'"):
        load(folder, Task.TEXT_CLASSIFICATION)


def test_files_without_the_weights_of_a_task_are_not_loaded_for_it(tiny: dict[str, Path]) -> None:
    with pytest.raises(ModelBroken, match=r"lack weights that .* classifier\.bias, classif"):
        load(tiny["mlm"], Task.TEXT_CLASSIFICATION)
    assert Task.FEATURE_EXTRACTION in load(tiny["mlm"], Task.FEATURE_EXTRACTION).tasks


def test_models_of_different_dtypes_may_be_loaded_at_once(tiny: dict[str, Path]) -> None:
    """Of torch's default dtype, which each load sets for a while, nothing is left."""

    def load_one(dtype: str) -> int:
        spec = ModelSpec.model_validate(
            {"source": str(tiny["sentiment"]), "task": "text-classification", "dtype": dtype, "device": "cpu"}
        )
        return PROVIDER.load("m", spec, context()).memory_bytes

    alone = [load_one("float32"), load_one("bfloat16")]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(load_one, ["float32", "bfloat16"] * 8))
    assert found == alone * 8
    assert torch.get_default_dtype() is torch.float32
