"""One step of many replies: a token of each goes through the model together. Imports torch.

What is alike for all of them, the weights, is read once for the step. What is a reply's own, the keys and
values of the tokens before, stays its own: attention is computed for each by itself, over just its tokens.
So nothing is padded, nothing is moved when a reply comes or goes, and what a step computes for a reply does
not depend on its neighbours, as far as the matrix products don't (see `_PAIR`).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "goatherd_rows"
"""The name that transformers knows our attention by."""

# A row grows by a quarter, and by so many tokens at least.
_GROWTH = 64

# What a lone row is computed as, on a CPU in bfloat16. There torch multiplies a matrix with one vector in
# another way than with several, and rounds otherwise. From two rows on each row's result is the same to the
# bit, whatever the others are; and two take no longer than one, as reading the weights is what lasts.
_PAIR = 2

_underway = threading.local()


class Row(Protocol):
    """What a model keeps of one reply."""

    @property
    def length(self) -> int:
        """Tokens that it has read."""

    def make_room(self) -> None:
        """For one token more. Raises what torch raises where there is no memory."""


class LoneRow:
    """A row of a model that can't step in rows: its own cache, of whatever kind the model has."""

    def __init__(self, cache: DynamicCache) -> None:
        self.cache = cache

    @property
    def length(self) -> int:
        return int(self.cache.get_seq_length())

    def make_room(self) -> None:
        pass


class KeyValueRow:
    """Keys and values of one reply, of shape [1, heads, capacity, width] for each layer."""

    def __init__(self, cache: DynamicCache) -> None:
        """Takes over what the cache holds; the cache is not to be used any more."""
        self._length = int(cache.get_seq_length())
        layers: list[Any] = list(cache.layers)
        self.keys: list[torch.Tensor] = [layer.keys for layer in layers]
        self.values: list[torch.Tensor] = [layer.values for layer in layers]

    @property
    def length(self) -> int:
        return self._length

    def make_room(self) -> None:
        for tensors in (self.keys, self.values):
            for n, tensor in enumerate(tensors):
                if tensor.shape[2] == self._length:
                    more = max(_GROWTH, self._length // 4)
                    grown = tensor.new_empty((*tensor.shape[:2], self._length + more, tensor.shape[3]))
                    grown[:, :, : self._length] = tensor
                    tensors[n] = grown

    def grew(self) -> None:
        self._length += 1


def rows_fit(cache: DynamicCache) -> bool:
    """Whether all layers' caches are plain keys and values of all tokens."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def install(model: Any) -> bool:
    """Has a model compute attention by our function, which outside of steps is `sdpa`. False if it can't."""
    if model.config._attn_implementation != "sdpa":
        return False
    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)
    return bool(model.config._attn_implementation == ATTENTION)


def uninstall(model: Any) -> None:
    model.set_attn_implementation("sdpa")


@torch.inference_mode()
def step(model: Any, rows: Sequence[KeyValueRow], tokens: Sequence[int]) -> torch.Tensor:
    """Each row reads one token. Scores of the next ones, of shape [rows, vocabulary].

    There has to be room (`make_room`). If it raises, the rows are as before.
    """
    device = model.device
    pair = len(rows) == 1 and device.type == "cpu" and model.dtype == torch.bfloat16
    count = _PAIR if pair else len(rows)
    batch = _Batch(rows, count)
    _underway.batch = batch
    try:
        output = model(
            input_ids=torch.tensor([[token] for token in tokens] * (count // len(rows)), device=device),
            position_ids=torch.tensor([[row.length] for row in rows] * (count // len(rows)), device=device),
            # Never looked at: each row's attention is over all that it has. Of four dimensions, so that
            # transformers makes none of its own.
            attention_mask=torch.ones((count, 1, 1, 1), dtype=torch.bool, device=device),
            past_key_values=batch.cache,
            use_cache=True,
        )
    finally:
        del _underway.batch
    for row in rows:
        row.grew()
    scores: torch.Tensor = output.logits[: len(rows), -1]
    return scores


class _Batch:
    """The rows of the step that this thread computes."""

    def __init__(self, rows: Sequence[KeyValueRow], count: int) -> None:
        self.rows = rows
        self.count = count
        longest = max(row.length for row in rows)
        self.cache = Cache(layers=[_Layer(rows, n, longest) for n in range(len(rows[0].keys))])

    def attend(
        self, layer: int, query: torch.Tensor, scaling: float | None, window: int | None
    ) -> torch.Tensor:
        """Of shape [count, 1, heads, width], from a query of shape [count, heads, 1, width]."""
        count, heads, _, width = query.shape
        groups = self.rows[0].keys[layer].shape[1]
        # Heads that share keys are as several queries of one head.
        queries = query.view(count, groups, heads // groups, width)
        parts = []
        for n, row in enumerate(self.rows):
            end = row.length + 1
            begin = max(0, end - window) if window else 0
            parts.append(
                scaled_dot_product_attention(
                    queries[n : n + 1],
                    row.keys[layer][:, :, begin:end],
                    row.values[layer][:, :, begin:end],
                    scale=scaling,
                )
            )
        parts += parts[:1] * (count - len(parts))
        return torch.cat(parts).reshape(count, 1, heads, -1)


class _Layer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """Puts what a layer computes of the step's tokens into the rows. Its attention reads it there."""

    def __init__(self, rows: Sequence[KeyValueRow], layer: int, longest: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._rows = rows
        self._layer = layer
        self._longest = longest
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        pass

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for n, row in enumerate(self._rows):
            row.keys[self._layer][0, :, row.length] = key_states[n, :, 0]
            row.values[self._layer][0, :, row.length] = value_states[n, :, 0]
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._longest + query_length, 0

    def get_seq_length(self) -> int:
        return self._longest

    def get_max_length(self) -> int:
        return -1


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    batch: _Batch | None = getattr(_underway, "batch", None)
    if batch is None:
        attended, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
        return attended, None
    if any(more.get(name) is not None for name in ("softcap", "s_aux", "position_bias")):
        raise NotImplementedError("attention of a kind that is not computed in rows")
    layer: int = module.layer_idx  # type: ignore[assignment]
    return batch.attend(layer, query, scaling, more.get("sliding_window")), None
