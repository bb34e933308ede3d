"""Linear layers on a CPU with their weights packed once, in the order in which oneDNN reads them.

torch hands float32 layers to MKL, which packs the weights anew with each call, and on CPUs that are not
Intel's leaves AVX-512 unused. With all-MiniLM-L6-v2 on such a CPU packed layers compute 2.2 times as fast,
and the whole model 1.7 times; results differ from the library's by what float32 rounds.

The only module that knows torch's own operators for this. What they can't do stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from activities.backends.hf.encoding import Encoder
from goatherd.errors import Invalid

_LEAST = 128
"""Smaller layers have nothing to gain."""
_ALIKE = 1e-3
_STEPS = ((64, 8), (256, 32), (2_048, 64))
"""Up to how many rows they are rounded up to multiples of what."""
_COARSEST = 512
_TEXT = "A goat is a goat, and a herd is a herd."


class PackedLinear(nn.Module):
    """As the layer that it is made of."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        # Neither parameters nor buffers: packed tensors can't be moved, or looked at.
        self._packed = _operators()._reorder_linear_weight(layer.weight.detach(), None)
        self._bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        flat = given.reshape(-1, given.shape[-1])
        rows = flat.shape[0]
        if more := rounded(rows) - rows:
            flat = nn.functional.pad(flat, (0, 0, 0, more))
        made: torch.Tensor = _operators()._linear_pointwise(flat, self._packed, self._bias, "none", [], "")
        return made[:rows].view(*given.shape[:-1], made.shape[-1])


def rounded(rows: int) -> int:
    """So many rows, or a few more.

    oneDNN makes code for each number of rows that it meets, in a millisecond and most of a megabyte, and
    keeps it: texts of all lengths would cost more memory than the model.
    """
    step = next((step for most, step in _STEPS if rows <= most), _COARSEST)
    return -(-rows // step) * step


def pack_for_texts(model: Any, encoder: Encoder) -> None:
    """`pack`, tried with a text."""
    try:
        row = encoder.encode(_TEXT)
    except Invalid:  # its tokenizer knows other things only
        return
    pack(model, encoder.pad([row], model.device))


def pack(model: nn.Module, example: Mapping[str, torch.Tensor]) -> None:
    """Packs the model's linear layers where that is possible: then it only infers, where it is.

    It is tried with `example`, an input. A model that reads its layers' weights itself is left as it was.
    """
    able = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    layers = list(_layers(model)) if able else []
    if not layers:
        return
    with torch.inference_mode():
        before = _first(model, example)
        try:
            for parent, name, layer in layers:
                setattr(parent, name, PackedLinear(layer))
            same = torch.allclose(before, _first(model, example), rtol=_ALIKE, atol=_ALIKE)
        except (AttributeError, RuntimeError, TypeError):
            same = False
    if not same:
        for parent, name, layer in layers:
            setattr(parent, name, layer)


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """Those with weights of their own: one that is also a table of words would be in memory twice."""
    uses: dict[int, int] = {}
    for weight in (one for _, one in model.named_parameters(remove_duplicate=False)):
        uses[weight.data_ptr()] = uses.get(weight.data_ptr(), 0) + 1
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if (
                type(layer) is nn.Linear
                and layer.weight.device.type == "cpu"
                and layer.weight.dtype is torch.float32
                and min(layer.weight.shape) >= _LEAST
                and uses[layer.weight.data_ptr()] == 1
            ):
                yield parent, name, layer


def _first(model: nn.Module, example: Mapping[str, torch.Tensor]) -> torch.Tensor:
    made: torch.Tensor = model(**example)[0]
    return made


def _operators() -> Any:
    return torch.ops.mkldnn
