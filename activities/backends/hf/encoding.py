"""Texts as a model's tokenizer turns them into tokens, each by itself: batches are padded where they are run.

Tokenizers of transformers that are fast are asked at their Rust side: a call of the Python side takes three
times as long, and sets truncation for whoever comes next. Others are asked as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import AutoTokenizer

from goatherd.errors import Invalid

Side = Literal["left", "right"]

# For the few models that have no limit of their own (T5 without one in its tokenizer's files).
_DEFAULT_WINDOW = 4_096
# A text of more characters than this for each token of the window is first tried without its rest: a window
# is full long before. Rarely it is not, and the whole text is read.
_CHARS_A_TOKEN = 24


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One sequence as the model will see it, unpadded. `encoding` is the Rust side's, with words and
    characters, where a task needs them."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    types: np.ndarray[Any, np.dtype[np.int32]] | None = None
    encoding: Any = None

    def __len__(self) -> int:
        return len(self.ids)


class Encoder:
    """A tokenizer and the window of its model. Safe in several threads at once."""

    def __init__(self, tokenizer: Any, window: int, *, types: bool) -> None:
        """`types`: whether the model takes the sequence that each token is of."""
        self.tokenizer = tokenizer
        self.window = window
        self.pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.language: str | None = getattr(tokenizer, "src_lang", None)
        """Of texts that do not say theirs, where the tokenizer marks languages."""
        self._types = types
        self._rust = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        # Truncation is a state of the tokenizer: set and used by one thread at a time.
        self._lock = threading.Lock()

    @classmethod
    def load(cls, folder: Path, model: Any, *, most: int | None = None) -> Encoder:
        """The tokenizer of a folder, for `model`; `most` narrows the window."""
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if tokenizer.pad_token_id is None and tokenizer.eos_token is not None:
            tokenizer.pad_token = tokenizer.eos_token
        if getattr(model.config, "pad_token_id", None) is None:
            # Decoders that classify look for the last token that is no padding.
            model.config.pad_token_id = tokenizer.pad_token_id
        known = inspect_inputs(model)
        types = "token_type_ids" in tokenizer.model_input_names and "token_type_ids" in known
        window = _window(tokenizer, model)
        return cls(tokenizer, min(window, most) if most else window, types=types)

    @property
    def fast(self) -> bool:
        return self._rust is not None

    def encode(
        self,
        text: str,
        *,
        cut: bool = True,
        side: Side | None = None,
        keep: bool = False,
        language: str | None = None,
        pointer: str = "/inputs",
    ) -> Row:
        """One text with the special tokens around it, cut at its `side` end to what the window holds.

        `keep` the Rust side's encoding; `language` is the text's, of tokenizers that mark it.

        Raises:
            Invalid: it has no tokens at all; or is too long and not to be `cut` (`too-long`).
        """
        side = side or self.tokenizer.truncation_side
        if shorter := self._shorter(text, side):
            row = self._encode(shorter, cut, side, keep, language)
            if len(row) >= self.window and not cut:
                raise too_long(f"more than {self.window}", self.window, pointer)
        if not shorter or len(row) < self.window:
            row = self._encode(text, cut, side, keep, language)
        if len(row) > self.window:
            raise too_long(len(row), self.window, pointer)
        if not len(row):
            raise Invalid("the text has no tokens that the model knows", pointer=pointer)
        return row

    def pairs(self, text: str, others: Sequence[str], *, pointer: str = "/inputs") -> list[Row]:
        """The text with each of the others, which are kept whole: the text is cut to what they leave.

        Raises:
            Invalid: an other one leaves nothing (`too-long`).
        """
        if self._rust is None:
            rows = [self._slow(text, other, truncation="only_first") for other in others]
        else:
            shorter = self._shorter(text, "right")
            with self._lock:
                self._rust.no_truncation()
                first = self._rust.encode(shorter or text, add_special_tokens=False)
                if shorter is not None and len(first) < self.window:
                    first = self._rust.encode(text, add_special_tokens=False)
                first.truncate(self.window)
                seconds = self._rust.encode_batch(list(others), add_special_tokens=False)
                extra = self._rust.num_special_tokens_to_add(True)
                self._rust.enable_truncation(self.window, strategy="only_first")
                rows = []
                for second in seconds:
                    if len(second) + extra >= self.window:
                        raise too_long(len(second) + extra, self.window, pointer)
                    rows.append(self._row(self._rust.post_process(first, second), keep=False))
        return rows

    def pieces(self, text: str) -> list[int]:
        """The text's tokens alone."""
        if self._rust is None:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        with self._lock:
            self._rust.no_truncation()
            return list(self._rust.encode(text, add_special_tokens=False).ids)

    def windows(
        self, text: str, pair: str | None = None, *, size: int, stride: int, cut_second: bool = True
    ) -> list[Row]:
        """All of the text (or of one of two), in windows of `size` tokens that share `stride`, each with the
        special tokens around it. Only by fast tokenizers."""
        assert self._rust is not None
        strategy = "longest_first" if pair is None else "only_second" if cut_second else "only_first"
        with self._lock:
            self._rust.no_padding()
            self._rust.enable_truncation(size, stride=stride, strategy=strategy)
            encoding = self._rust.encode(text, pair)
        return [self._row(one, keep=True) for one in (encoding, *encoding.overflowing)]

    def language_token(self, language: str) -> int | None:
        """What a text in that language begins with, of tokenizers that mark languages; None for others, and
        for a language that this one does not know."""
        if not hasattr(self.tokenizer, "_build_translation_inputs"):
            return None
        with self._lock:
            if hasattr(self.tokenizer, "get_lang_id"):
                known = language in self.tokenizer.lang_code_to_token
                return int(self.tokenizer.get_lang_id(language)) if known else None
            token = self.tokenizer.convert_tokens_to_ids(language)
        return None if token is None or token == self.tokenizer.unk_token_id else int(token)

    def room(self, *, pair: bool = False) -> int:
        """Tokens of the window that the special ones leave."""
        return self.window - int(self.tokenizer.num_special_tokens_to_add(pair=pair))

    def pad(self, rows: Sequence[Row], device: torch.device) -> dict[str, torch.Tensor]:
        """The rows as one batch, padded to the longest of them, as the model takes them."""
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        types = np.full((len(rows), longest), self.tokenizer.pad_token_type_id, np.int64)
        left = self.tokenizer.padding_side == "left"
        for n, row in enumerate(rows):
            place = slice(longest - len(row), None) if left else slice(len(row))
            ids[n, place] = row.ids
            mask[n, place] = 1
            if row.types is not None:
                types[n, place] = row.types
        arrays = {"input_ids": ids, "attention_mask": mask}
        if self._types:
            arrays["token_type_ids"] = types
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}

    def unpadded(self, rows: Sequence[Row]) -> list[slice]:
        """Where each of the rows is in the batch that `pad` makes of them."""
        longest = max(map(len, rows))
        if self.tokenizer.padding_side == "left":
            return [slice(longest - len(row), longest) for row in rows]
        return [slice(len(row)) for row in rows]

    def _encode(self, text: str, cut: bool, side: Side, keep: bool, language: str | None) -> Row:
        if self._rust is None:
            return self._slow(text, None, truncation=cut, side=side, language=language)
        with self._lock:
            if language is not None:
                self.tokenizer.src_lang = language
            self._rust.no_padding()
            if cut:
                self._rust.enable_truncation(self.window, direction=side)
            else:
                self._rust.no_truncation()
            encoding = self._rust.encode(text)
        return self._row(encoding, keep=keep)

    def _slow(
        self,
        text: str,
        pair: str | None,
        *,
        truncation: bool | str,
        side: Side = "right",
        language: str | None = None,
    ) -> Row:
        with self._lock:
            if language is not None:
                self.tokenizer.src_lang = language
            self.tokenizer.truncation_side = side
            made = self.tokenizer(
                text,
                pair,
                truncation=truncation,
                max_length=self.window if truncation else None,
                verbose=False,
            )
        types = made.get("token_type_ids")
        return Row(
            np.array(made["input_ids"], np.int32), None if types is None else np.array(types, np.int32)
        )

    def _row(self, encoding: Any, *, keep: bool) -> Row:
        types = np.array(encoding.type_ids, np.int32) if self._types else None
        return Row(np.array(encoding.ids, np.int32), types, encoding if keep else None)

    def _shorter(self, text: str, side: Side) -> str | None:
        """The end of a very long text that is kept, with some to spare, cut between two words."""
        most = self.window * _CHARS_A_TOKEN
        if len(text) <= 2 * most:
            return None
        if side == "right":
            gap = text.find(" ", most, 2 * most)
            return text[:gap] if gap > 0 else None
        gap = text.rfind(" ", len(text) - 2 * most, len(text) - most)
        return text[gap:] if gap > 0 else None


def too_long(has: int | str, window: int, pointer: str) -> Invalid:
    return Invalid(
        f"too long: it has {has} tokens, and the model sees at most {window}",
        code="too-long",
        pointer=pointer,
    )


def inspect_inputs(model: Any) -> Sequence[str]:
    """The names of what a model's `forward` takes."""
    import inspect

    return list(inspect.signature(model.forward).parameters)


def _window(tokenizer: Any, model: Any) -> int:
    """How many tokens a model sees at most, special ones counted."""
    config = model.config
    limits = [tokenizer.model_max_length] if tokenizer.model_max_length < 1e9 else []
    for name in ("max_position_embeddings", "n_positions", "max_encoder_position_embeddings"):
        if isinstance(positions := getattr(config, name, None), int) and positions > 0:
            limits.append(positions)
    for name, module in model.named_modules():
        # RoBERTa and its kin begin to count positions behind the one of padding.
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            limits.append(
                module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
            )
    return int(min(limits)) if limits else _DEFAULT_WINDOW
