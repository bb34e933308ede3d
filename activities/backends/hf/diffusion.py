"""Images from text: `text-to-image`, by diffusers' pipelines. Needs the extra `images`."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import torch
from diffusers import DiffusionPipeline

from activities.backends.hf import loading
from activities.backends.hf.together import part_of
from activities.backends.media.images import write_image
from activities.inference_ports import Item, LoadContext, LoadedModel, Made, Result
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Media, TextToImageParameters
from goatherd.errors import GoatherdError, Invalid, Unavailable

_MOST_CHARS = 10_000

# A latent of so many pixels is what an image weighs, twice with guidance.
_LATENT = 8


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    loading.set_up(context)
    device = loading.choose_device(spec)
    dtype = loading.choose_dtype(spec, device)
    with loading.memory_errors_translated():
        pipe = part_of(
            DiffusionPipeline,
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float16 if isinstance(dtype, str) else dtype,
        ).to(device)
    if "prompt" not in inspect.signature(pipe.__call__).parameters:
        raise ValueError(f"{type(pipe).__name__} makes images of nothing, not of a text")
    pipe.set_progress_bar_config(disable=True)
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return loading.Loaded(loading.memory_of(*modules), {spec.task: ImageRunner(pipe)})


class _Cancelled(Exception):
    """Nobody waits any more."""


class ImageRunner:
    """See `BlockingRunner`. Texts that ask for the same steps, size and so on are drawn together, each from
    its own seed: its image is what it is alone."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._takes = inspect.signature(pipe.__call__).parameters
        self._scheduler = pipe.scheduler

    def weigh(self, item: Item) -> int:
        asked = item.parameters
        assert isinstance(asked, TextToImageParameters)
        width, height = asked.width or 512, asked.height or 512
        return max(1, 2 * width * height // _LATENT**2)

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        results: list[Result] = [Unavailable("cancelled")] * len(items)
        groups: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            asked = item.parameters
            assert isinstance(asked, TextToImageParameters)
            try:
                self._check(item.inputs, asked)
            except GoatherdError as error:
                results[place] = error
            else:
                alike = asked.model_dump_json(exclude={"seed", "negative_prompt"})
                groups.setdefault(f"{alike} {asked.negative_prompt is None}", []).append(place)
        for places in groups.values():
            if cancelled.is_set():
                break
            made = self._draw([items[place] for place in places], cancelled)
            for place, one in zip(places, made, strict=True):
                results[place] = one
        return results

    def _check(self, text: str, asked: TextToImageParameters) -> None:
        """Raises `Invalid` for what the pipeline can't do."""
        if len(text) > _MOST_CHARS:
            raise Invalid(f"too long: {len(text):,} characters", code="too-long")
        for name in TextToImageParameters.model_fields:
            given = name not in ("seed", "scheduler") and getattr(asked, name) is not None
            if given and name not in self._takes:
                raise Invalid(f"the model takes no {name}", pointer=f"/parameters/{name}")
        for name in ("width", "height"):
            side, unit = getattr(asked, name), self._unit
            if side is not None and side % unit:
                raise Invalid(f"{name} is {side}, no multiple of {unit}", pointer=f"/parameters/{name}")
        self._scheduled(asked.scheduler)

    @property
    def _unit(self) -> int:
        """Sides are multiples of it. Diffusers' own check is for 8."""
        return max(8, int(getattr(self._pipe, "vae_scale_factor", 8)))

    def _scheduled(self, name: str | None) -> Any:
        """A scheduler of the model's own settings: each run has a fresh one. Raises `Invalid`."""
        if name is None:
            return type(self._scheduler).from_config(self._scheduler.config)
        able = {kind.__name__: kind for kind in self._scheduler.compatibles}
        if name not in able:
            raise Invalid(
                f"the model has no scheduler {name!r}, but {', '.join(sorted(able))}",
                pointer="/parameters/scheduler",
            )
        return able[name].from_config(self._scheduler.config)

    def _draw(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        asked: list[Any] = [item.parameters for item in items]
        # All are alike but in text, what is not wanted, and seed.
        options = {
            name: getattr(asked[0], name)
            for name in ("guidance_scale", "height", "width", "num_inference_steps")
            if getattr(asked[0], name) is not None
        }
        if asked[0].negative_prompt is not None:
            options["negative_prompt"] = [one.negative_prompt for one in asked]
        if "callback_on_step_end" in self._takes:
            options["callback_on_step_end"] = _stopping(cancelled)
        # Drawn on the CPU: the same seed gives the same image on any device.
        seeds = [secrets.randbits(63) if one.seed is None else one.seed for one in asked]
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        self._pipe.scheduler = self._scheduled(asked[0].scheduler)
        try:
            with loading.memory_errors_translated(), torch.inference_mode():
                drawn = self._pipe(prompt=[item.inputs for item in items], generator=generators, **options)
        except _Cancelled:
            return [Unavailable("cancelled")] * len(items)
        except ValueError as error:
            # How diffusers refuses parameters, after the checks of ours.
            return [Invalid(str(error).splitlines()[0], pointer="/parameters")] * len(items)
        flags = getattr(drawn, "nsfw_content_detected", None) or [None] * len(items)
        return [
            Made(
                Media(data=write_image(image), mime="image/png"),
                # The model's own checker has made such an image black.
                passed_on=None if flag is None else {"nsfw_content_detected": bool(flag)},
            )
            for image, flag in zip(drawn.images, flags, strict=True)
        ]


def _stopping(cancelled: Event) -> Any:
    def at_step(pipe: Any, step: int, time: Any, kept: dict[str, Any]) -> dict[str, Any]:
        if cancelled.is_set():
            raise _Cancelled
        return kept

    return at_step
