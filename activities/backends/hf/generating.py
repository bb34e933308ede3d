"""How sequences are generated for one caller among others: its settings, and draws by its own seed."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch
from transformers import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from goatherd.contracts.inference_tasks import GenerateParameters
from goatherd.contracts.model import Json
from goatherd.errors import Invalid

# As the pipelines of transformers 5 have it, where neither the caller nor the model's files say.
_MAX_NEW_TOKENS = 256
_TOP_K = 50
_DRAWING = ("temperature", "top_k", "top_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one sequence. Those whose `settled` and `drawn` are equal can be generated together."""

    settled: Json
    """For transformers' generation, which draws nothing."""
    drawn: Json | None
    """How tokens are drawn; None if the likeliest is taken."""
    seed: int


def settle(wish: GenerateParameters, own: GenerationConfig, extra: Json, longest: int | None) -> Settings:
    """The caller's wish, else what is said for the task (`extra`), else the model's own (`own`).

    Args:
        longest: most tokens that the model can generate, if there is a limit.

    Raises:
        Invalid: wishes that can't be followed together.
    """
    asked = wish.model_dump(include=set(GenerateParameters.model_fields), exclude_none=True)
    seed = asked.pop("seed", None)
    both = {**extra, **asked}
    for one, other in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if (one in asked and other not in asked) or (one in extra and other not in both):
            both.pop(other, None)
        elif other in both:
            both.pop(one, None)
    if "max_length" not in both and "max_new_tokens" not in both and own.max_length is None:
        both["max_new_tokens"] = own.max_new_tokens or _MAX_NEW_TOKENS
    for name in ("max_length", "max_new_tokens"):
        if longest is not None and name in both:
            both[name] = min(both[name], longest - (name == "max_new_tokens"))
    for name, most in (("min_length", "max_length"), ("min_new_tokens", "max_new_tokens")):
        if name in asked and asked[name] > both.get(most, asked[name]):
            raise Invalid(f"{name} is more than {most}, {both[most]}", pointer=f"/parameters/{name}")
    drawn = {name: both.pop(name) for name in _DRAWING if name in both}
    draws = both.pop("do_sample", None)
    if draws is None:
        draws = any(name in asked for name in _DRAWING) or bool(own.do_sample)
    if draws and both.get("num_beams", own.num_beams or 1) > 1:
        raise Invalid(
            "the tokens of beams are not drawn: leave one of them out", pointer="/parameters/num_beams"
        )
    for name in _DRAWING:
        value = getattr(own, name, None)
        if name not in drawn and value is not None:
            drawn[name] = value
    drawn.setdefault("top_k", _TOP_K)
    return Settings(both, drawn if draws else None, secrets.randbits(63) if seed is None else seed)


def configure(own: GenerationConfig, settings: Settings) -> GenerationConfig:
    config = copy.deepcopy(own)
    config.do_sample = False
    for name in _DRAWING:
        setattr(config, name, None)
    for name, other in (("max_length", "max_new_tokens"), ("max_new_tokens", "max_length")):
        if name in settings.settled:
            setattr(config, other, None)
    for name, value in settings.settled.items():
        setattr(config, name, value)
    return config


def processors(sequences: Sequence[Settings], watch: Watch) -> LogitsProcessorList:
    """For sequences of equal settings: a watch over their scores, and the draw of each by its own seed."""
    drawn = sequences[0].drawn
    chain: list[LogitsProcessor] = [watch]
    if drawn is not None:
        # The order is that of transformers.
        if drawn.get("temperature") not in (None, 1.0):
            chain.append(TemperatureLogitsWarper(float(drawn["temperature"])))
        if drawn["top_k"]:
            chain.append(TopKLogitsWarper(drawn["top_k"]))
        if drawn.get("top_p", 1.0) < 1:
            chain.append(TopPLogitsWarper(drawn["top_p"]))
        if drawn.get("typical_p", 1.0) < 1:
            chain.append(TypicalLogitsWarper(drawn["typical_p"]))
        if 0 < drawn.get("epsilon_cutoff", 0) < 1:
            chain.append(EpsilonLogitsWarper(drawn["epsilon_cutoff"]))
        if 0 < drawn.get("eta_cutoff", 0) < 1:
            chain.append(EtaLogitsWarper(drawn["eta_cutoff"]))
        chain.append(_Draw([one.seed for one in sequences]))
    return LogitsProcessorList(chain)


class _Draw(LogitsProcessor):
    """Noise that makes the likeliest token one that is drawn by the probabilities (Gumbel's trick).

    torch's own draw is from one generator for the whole process: there a seed of one sequence would disturb,
    and be disturbed by, all others.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty(scores.shape, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log_().to(scores.device)


class Watch(LogitsProcessor):
    """Remembers which sequences had scores that are no number."""

    def __init__(self) -> None:
        self._broken: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        broken = scores.isnan().any(-1)
        self._broken = broken if self._broken is None else self._broken | broken
        return scores

    def broken(self, sequences: int) -> list[bool]:
        """Of each of so many; their beams stand one behind the other."""
        if self._broken is None:
            return [False] * sequences
        flags: list[bool] = self._broken.view(sequences, -1).any(-1).tolist()
        return flags


class Cancelled(StoppingCriteria):
    """Ends all sequences once nobody waits for them."""

    def __init__(self, cancelled: Event) -> None:
        self._cancelled = cancelled

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._cancelled.is_set(), device=input_ids.device)
