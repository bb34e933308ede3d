"""Random numbers of one's own: what is drawn in a block comes from a seed, whatever other threads draw.

Models of transformers draw from torch's generator for the whole process. `torch.manual_seed` before a call
gives the same numbers as the block here, but only as long as no other model computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# They take a generator …
_TAKE = {
    torch.multinomial,
    torch.bernoulli,
    torch.normal,
    torch.randn,
    torch.rand,
    torch.randint,
    torch.randperm,
    torch.Tensor.multinomial,
    torch.Tensor.bernoulli,
    torch.Tensor.bernoulli_,
    torch.Tensor.normal_,
    torch.Tensor.uniform_,
    torch.Tensor.exponential_,
}
# … and these do not.
_LIKE = {torch.randn_like: torch.Tensor.normal_, torch.rand_like: torch.Tensor.uniform_}


class _Own(TorchFunctionMode):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LIKE:
            # Filled in the order of its memory, as theirs is.
            return _LIKE[func](torch.empty_like(*args, **kwargs), generator=self._generator)
        if func in _TAKE and kwargs.get("generator") is None:
            return func(*args, **{**kwargs, "generator": self._generator})
        return func(*args, **kwargs)


@contextmanager
def drawn_from(seed: int | None, device: torch.device) -> Iterator[None]:
    """Without a seed nothing changes."""
    if seed is None:
        yield
        return
    with _Own(torch.Generator(device).manual_seed(seed)):
        yield
