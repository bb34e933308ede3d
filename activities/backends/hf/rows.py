"""What runners of texts have in common: items are turned into rows once, rows are computed in batches of
like length, and an item that fails fails alone."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from threading import Event
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from activities.backends.hf.encoding import Encoder, Row, inspect_inputs
from activities.backends.hf.loading import memory_errors_translated
from activities.inference_ports import Item, Made, Result
from goatherd.contracts.inference import Limits
from goatherd.contracts.inference_work import TextUsage
from goatherd.errors import GoatherdError, Invalid, Unavailable

Output = TypeVar("Output")

# Tokens of rows that were weighed and have not been run. What is not run is forgotten, and read again.
_KEPT_TOKENS = 400_000
# A batch of at least so many tokens is not padded much for a short row: that one goes into another.
_FULL_CPU = 1_024
_FULL_GPU = 16_384
_FILLED = 0.75


class RowsRunner(ABC, Generic[Output]):
    """A task that is one pass of the model over the rows of each item. `Output` is what a row comes to."""

    def __init__(self, model: Any, encoder: Encoder, limits: Limits) -> None:
        self._model = model
        self._encoder = encoder
        self._limits = limits
        self._device: torch.device = model.device
        # Models that also generate would keep what they computed.
        self._extra = {"use_cache": False} if "use_cache" in inspect_inputs(model) else {}
        self._kept: OrderedDict[int, tuple[Item, list[Row]]] = OrderedDict()
        self._kept_tokens = 0
        self._lock = threading.Lock()

    @abstractmethod
    def rows(self, item: Item) -> list[Row]:
        """What the model has to see for it; at least one. Raises `Invalid` if it can't be computed."""

    @abstractmethod
    def compute(self, rows: Sequence[Row]) -> list[Output]:
        """One batch."""

    @abstractmethod
    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Output]) -> Any:
        """The item's output of its task's type, or a whole `Made`. Raises `Invalid` if the row's outputs are
        no good."""

    def weigh(self, item: Item) -> int:
        rows = self.rows(item)
        weight = sum(map(len, rows))
        with self._lock:
            # Its id is its own while it is kept here.
            self._kept[id(item)] = (item, rows)
            self._kept_tokens += weight
            while self._kept_tokens > _KEPT_TOKENS and len(self._kept) > 1:
                self._forget(next(iter(self._kept)))
        return weight

    def run(self, items: Sequence[Item], cancelled: Event) -> list[Result]:
        read: list[list[Row] | GoatherdError] = [self._read(item) for item in items]
        flat = [row for rows in read if isinstance(rows, list) for row in rows]
        outputs: dict[int, Output] = {}
        with memory_errors_translated(), torch.inference_mode():
            for batch in self._batches(flat):
                if cancelled.is_set():
                    break
                computed = self.compute([flat[n] for n in batch])
                outputs.update(zip(batch, computed, strict=True))
        results: list[Result] = []
        begin = 0
        for item, rows in zip(items, read, strict=True):
            if isinstance(rows, GoatherdError):
                results.append(rows)
                continue
            places = range(begin, begin + len(rows))
            begin += len(rows)
            if all(n in outputs for n in places):
                results.append(self._finish(item, rows, [outputs[n] for n in places]))
            else:
                results.append(Unavailable("the computation was cancelled"))
        return results

    def forward(self, padded: Mapping[str, torch.Tensor]) -> Any:
        """The model's output for a batch that the encoder padded."""
        return self._model(**padded, **self._extra)

    def most_tokens(self) -> int:
        """Of one batch, padding counted."""
        return self._limits.batch_tokens

    def _read(self, item: Item) -> list[Row] | GoatherdError:
        with self._lock:
            kept = self._forget(id(item))
        if kept is not None:
            return kept
        try:
            return self.rows(item)
        except GoatherdError as error:
            return error

    def _forget(self, key: int) -> list[Row] | None:
        _, rows = self._kept.pop(key, (None, None))
        if rows is not None:
            self._kept_tokens -= sum(map(len, rows))
        return rows

    def _finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[Output]) -> Result:
        try:
            output = self.finish(item, rows, outputs)
        except GoatherdError as error:
            return error
        if isinstance(output, Made):
            return output
        return Made(output, usage=TextUsage(input_tokens=sum(map(len, rows))))

    def _batches(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Places of rows that are computed together: of like length, the longest first."""
        full = min(_FULL_CPU if self._device.type == "cpu" else _FULL_GPU, self.most_tokens())
        batch: list[int] = []
        longest = 0
        for n in sorted(range(len(rows)), key=lambda n: -len(rows[n])):
            size = len(rows[n])
            if batch and (
                len(batch) >= self._limits.batch
                or (len(batch) + 1) * longest > self.most_tokens()
                or (len(batch) * longest >= full and size < _FILLED * longest)
            ):
                yield batch
                batch = []
            if not batch:
                longest = size
            batch.append(n)
        if batch:
            yield batch


def no_number() -> Invalid:
    """Of weights that are broken, or of an input that leads out of the range of the model's dtype."""
    return Invalid("the model computed NaN for this input: no number")


def finite(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The scores, if all of them are numbers; else raises `no_number`."""
    if not np.isfinite(scores).all():
        raise no_number()
    return scores
