"""`text-to-image` with a Stable Diffusion of random weights: its images mean nothing; tested are their form,
and that they are what diffusers' pipeline makes."""

from __future__ import annotations

from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

from activities.backends.media.images import read_image, write_image
from activities.inference_ports import Item, LoadedModel
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid, Unavailable
from tests.activities.hf.media_calls import item, loaded, run
from tests.models.unlearned import unlearned

pytest.importorskip("diffusers")
IMAGE = Task.TEXT_TO_IMAGE
SMALL: dict[str, Any] = {"width": 32, "height": 32, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded(unlearned(tmp_path_factory.mktemp("weights"), "diffusion"), IMAGE)


def pipe_of(model: LoadedModel) -> Any:
    runner: Any = model.runner(IMAGE)
    return runner._pipe


def asked(text: str, **parameters: Any) -> Item:
    return item(IMAGE, text, **{**SMALL, **parameters})


def test_image_is_that_of_the_pipeline(model: LoadedModel) -> None:
    (got,) = run(model, [asked("a goat", seed=7, guidance_scale=3.0, negative_prompt="a dog")])
    expected = pipe_of(model)(
        "a goat",
        negative_prompt="a dog",
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        **SMALL,
    )
    assert got.data == write_image(expected.images[0])
    assert got.mime == "image/png"


def test_images_of_a_batch_are_what_they_are_alone(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [asked("a goat", seed=1), asked("a kid on a hill", seed=2), asked("a goat", seed=2)]
    alone = [run(model, [one])[0] for one in items]
    sizes = []
    unet = pipe_of(model).unet
    forward = unet.forward

    def counting(sample: Any, *rest: Any, **more: Any) -> Any:
        sizes.append(len(sample))
        return forward(sample, *rest, **more)

    monkeypatch.setattr(unet, "forward", counting)
    together = run(model, items)
    assert sizes == [6, 6]  # Each with and without its text, in both steps.
    for one, other in zip(together, alone, strict=True):
        pixels = [np.asarray(read_image(media.data), dtype=int) for media in (one, other)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1
    assert len({media.data for media in together}) == 3


def test_size_steps_and_scheduler_are_each_items_own(model: LoadedModel) -> None:
    plain, large, more, other = run(
        model,
        [
            asked("a goat", seed=1),
            asked("a goat", seed=1, width=64, height=48),
            asked("a goat", seed=1, num_inference_steps=3),
            asked("a goat", seed=1, scheduler="DDPMScheduler"),
        ],
    )
    assert read_image(large.data).size == (64, 48)
    assert len({plain.data, more.data, other.data}) == 3
    assert run(model, [asked("a goat", seed=1)]) == [plain]


def test_without_a_seed_images_differ(model: LoadedModel) -> None:
    one, other = run(model, [asked("a goat"), asked("a goat")])
    assert one != other


@pytest.mark.parametrize(
    ("parameters", "pointer", "why"),
    [
        ({"scheduler": "NoScheduler"}, "/parameters/scheduler", "but .*DDIMScheduler"),
        ({"scheduler": "DiffusionPipeline"}, "/parameters/scheduler", "no scheduler"),
        ({"width": 33}, "/parameters/width", "no multiple of 8"),
    ],
)
def test_what_the_model_can_not_do_is_refused_alone(
    model: LoadedModel, parameters: dict[str, Any], pointer: str, why: str
) -> None:
    bad, good = run(model, [asked("a goat", **parameters), asked("a goat")])
    assert isinstance(bad, Invalid)
    assert bad.pointer == pointer
    with pytest.raises(Invalid, match=why):
        raise bad
    assert good.mime == "image/png"


def test_too_long_a_text_is_refused(model: LoadedModel) -> None:
    (got,) = run(model, [asked("goat " * 10_000)])
    assert got.code == "too-long"


def test_drawing_stops_at_the_next_step_when_nobody_waits(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, steps = Event(), []
    unet = pipe_of(model).unet
    forward = unet.forward

    def noticed(*args: Any, **more: Any) -> Any:
        steps.append(1)
        if len(steps) == 3:
            cancelled.set()
        return forward(*args, **more)

    monkeypatch.setattr(unet, "forward", noticed)
    (got,) = run(model, [asked("a goat", num_inference_steps=50)], cancelled)
    assert isinstance(got, Unavailable)
    assert len(steps) == 3
