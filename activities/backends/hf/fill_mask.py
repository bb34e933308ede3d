"""Words for the gaps of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMaskedLM

from activities.backends.hf.encoding import Encoder, Row, too_long
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.packing import pack_for_texts
from activities.backends.hf.rows import RowsRunner, finite
from activities.inference_ports import Item, LoadContext, LoadedModel
from goatherd.contracts.inference import Limits, ModelSpec
from goatherd.contracts.inference_tasks import FilledMask, FillMaskParameters, Task
from goatherd.errors import Invalid

# Numbers that the model may compute at once where it scores every word for every token.
_MOST_SCORES = 2**27


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    set_up(context)
    model = pretrained(AutoModelForMaskedLM, spec, folder)
    encoder = Encoder.load(folder, model)
    if encoder.tokenizer.mask_token_id is None:
        raise ValueError("its tokenizer has no mask token")
    memory = memory_of(model)
    pack_for_texts(model, encoder)
    return Loaded(memory, {Task.FILL_MASK: FillMask(model, encoder, spec.limits)})


@dataclass(frozen=True, slots=True, eq=False)
class _Gapped(Row):
    """A row, and what is wished for its gaps."""

    top_k: int = 1
    targets: list[int] | None = None


@dataclass(frozen=True, slots=True)
class _Best:
    """The likeliest tokens of each gap: both of shape [gaps, k]."""

    scores: np.ndarray[Any, Any]
    tokens: np.ndarray[Any, Any]


class FillMask(RowsRunner[_Best]):
    """The likeliest words of each mask token by itself, as the pipeline of transformers gives them."""

    def __init__(self, model: Any, encoder: Encoder, limits: Limits) -> None:
        super().__init__(model, encoder, limits)
        self._mask: int = encoder.tokenizer.mask_token_id
        self._vocabulary: dict[str, int] = encoder.tokenizer.get_vocab()
        self._gaps: tuple[torch.Tensor, ...] | None = None
        head = model.get_output_embeddings()
        if isinstance(head, torch.nn.Linear):
            # Every word is scored for the gaps only: for all tokens that is half of a small model's work.
            head.register_forward_pre_hook(self._only_gaps)

    def most_tokens(self) -> int:
        words: int = self._model.config.vocab_size
        return min(super().most_tokens(), max(1, _MOST_SCORES // words))

    def rows(self, item: Item) -> list[Row]:
        wish = item.parameters
        assert isinstance(wish, FillMaskParameters)
        row = self._encoder.encode(item.inputs)
        if self._mask not in row.ids:
            token = self._encoder.tokenizer.mask_token
            if token in item.inputs:
                raise too_long(
                    f"{token} behind the first {self._encoder.window}", self._encoder.window, "/inputs"
                )
            raise Invalid(f"the text has no mask token ({token})", pointer="/inputs")
        targets = None if wish.targets is None else self._targets(wish.targets)
        most = len(self._vocabulary) if targets is None else len(targets)
        return [_Gapped(row.ids, row.types, None, min(wish.top_k, most), targets)]

    def compute(self, rows: Sequence[Row]) -> list[_Best]:
        padded = self._encoder.pad(rows, self._device)
        self._gaps = torch.nonzero(padded["input_ids"] == self._mask, as_tuple=True)
        logits = self.forward(padded).logits
        if logits.dim() == 3:
            logits = logits[self._gaps]
        counts = torch.bincount(self._gaps[0], minlength=len(rows)).tolist()
        self._gaps = None
        best = []
        for row, scores in zip(rows, logits.float().softmax(-1).split(counts), strict=True):
            assert isinstance(row, _Gapped)
            among = scores if row.targets is None else scores[:, row.targets]
            values, places = among.topk(row.top_k)
            tokens = places.cpu().numpy()
            if row.targets is not None:
                tokens = np.array(row.targets)[tokens]
            best.append(_Best(values.cpu().numpy(), tokens))
        return best

    def finish(
        self, item: Item, rows: Sequence[Row], outputs: Sequence[_Best]
    ) -> list[FilledMask] | list[list[FilledMask]]:
        ids, best = rows[0].ids, outputs[0]
        finite(best.scores)
        gaps = np.flatnonzero(ids == self._mask)
        filled = [
            [
                self._filled(ids, int(gap), int(token), float(score), alone=len(gaps) == 1)
                for token, score in zip(tokens, scores, strict=True)
            ]
            for gap, tokens, scores in zip(gaps, best.tokens, best.scores, strict=True)
        ]
        return filled[0] if len(filled) == 1 else filled

    def _filled(
        self, ids: np.ndarray[Any, Any], gap: int, token: int, score: float, *, alone: bool
    ) -> FilledMask:
        tokenizer = self._encoder.tokenizer
        whole = ids.copy()
        whole[gap] = token
        # With more gaps the other mask tokens are to be seen, and so all special ones are.
        sequence = tokenizer.decode(
            whole[whole != tokenizer.pad_token_id].tolist(), skip_special_tokens=alone
        )
        return FilledMask(score=score, token=token, token_str=tokenizer.decode([token]), sequence=sequence)

    def _targets(self, words: Sequence[str]) -> list[int]:
        """Their tokens, each once; of a word that is no token its first one."""
        tokens: list[int] = []
        for word in words:
            token = self._vocabulary.get(word)
            parts = [token] if token is not None else self._encoder.pieces(word)
            tokens += parts[:1]
        if not tokens:
            raise Invalid("none of the targets has a token", pointer="/parameters/targets")
        return sorted(set(tokens))

    def _only_gaps(
        self, _: torch.nn.Module, args: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...] | None:
        if self._gaps is None or args[0].dim() != 3:
            return None
        return (args[0][self._gaps], *args[1:])
