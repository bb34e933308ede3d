"""Answers that are spans of a context. transformers 5 has the models, and no pipeline any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForQuestionAnswering

from activities.backends.hf.encoding import Encoder, Row
from activities.backends.hf.loading import Loaded, memory_of, pretrained, set_up
from activities.backends.hf.packing import pack_for_texts
from activities.backends.hf.rows import RowsRunner, finite
from activities.backends.hf.spans import best_spans, probabilities
from activities.inference_ports import Item, LoadContext, LoadedModel
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Answer, QuestionAnsweringParameters, QuestionInContext, Task
from goatherd.errors import Invalid

# Of a window, where the caller does not say: what models were trained with, and read fastest by.
_MAX_SEQ_LEN = 384
_DOC_STRIDE = 128


def load(name: str, spec: ModelSpec, folder: Path, context: LoadContext) -> LoadedModel:
    set_up(context)
    model = pretrained(AutoModelForQuestionAnswering, spec, folder)
    encoder = Encoder.load(folder, model)
    if not encoder.fast:
        raise ValueError("its tokenizer is slow: it does not tell which characters a token is of")
    memory = memory_of(model)
    pack_for_texts(model, encoder)
    return Loaded(memory, {Task.QUESTION_ANSWERING: Extraction(model, encoder, spec.limits)})


@dataclass(frozen=True, slots=True)
class _Logits:
    begin: np.ndarray[Any, Any]
    end: np.ndarray[Any, Any]


class Extraction(RowsRunner[_Logits]):
    """Question and context are read together, a long context in windows that overlap.

    Each window's spans are scored by the probabilities of their first and last token, among those of the
    context and the one that stands for "no answer here" ([CLS]). A span that is in two windows counts once.
    """

    def rows(self, item: Item) -> list[Row]:
        wish, asked = item.parameters, item.inputs
        assert isinstance(wish, QuestionAnsweringParameters)
        assert isinstance(asked, QuestionInContext)
        window = self._encoder.window
        size = wish.max_seq_len or min(window, _MAX_SEQ_LEN)
        if size > window:
            raise Invalid(f"the model sees at most {window} tokens", pointer="/parameters/max_seq_len")
        question = self._question(asked.question, wish.max_question_len)
        taken = len(self._encoder.pieces(question)) + window - self._encoder.room(pair=True)
        room = size - taken
        if room < 1:
            raise Invalid(
                f"the question takes {taken} of a window's {size} tokens, and leaves none",
                code="too-long",
                pointer="/inputs/question",
            )
        stride = wish.doc_stride if wish.doc_stride is not None else min(size // 2, _DOC_STRIDE, room // 2)
        if stride >= room:
            raise Invalid(
                f"windows have {room} tokens of the context, and can't share {stride}",
                pointer="/parameters/doc_stride",
            )
        # Models that are padded at the left have the context first.
        first, second = (question, asked.context) if self._context_is == 1 else (asked.context, question)
        rows = self._encoder.windows(
            first, second, size=size, stride=stride, cut_second=self._context_is == 1
        )
        if not self._of_context(rows[0]).any():
            raise Invalid("the context has no tokens that the model knows", pointer="/inputs/context")
        return rows

    def compute(self, rows: Sequence[Row]) -> list[_Logits]:
        output = self.forward(self._encoder.pad(rows, self._device))
        begin = output.start_logits.float().cpu().numpy()
        end = output.end_logits.float().cpu().numpy()
        places = self._encoder.unpadded(rows)
        return [_Logits(begin[n, place], end[n, place]) for n, place in enumerate(places)]

    def finish(self, item: Item, rows: Sequence[Row], outputs: Sequence[_Logits]) -> list[Answer]:
        wish, asked = item.parameters, item.inputs
        assert isinstance(wish, QuestionAnsweringParameters)
        assert isinstance(asked, QuestionInContext)
        best: dict[tuple[int, int], float] = {}
        none = 1.0
        for row, logits in zip(rows, outputs, strict=True):
            context = self._of_context(row)
            apart = row.ids == self._encoder.tokenizer.cls_token_id
            allowed = context | apart
            begin = probabilities(finite(logits.begin), allowed)
            end = probabilities(finite(logits.end), allowed)
            if apart.any():
                none = min(none, float(begin[apart][0] * end[apart][0]))
            for span in best_spans(
                begin * context, end * context, longest=wish.max_answer_len, most=wish.top_k
            ):
                chars = self._characters(row, span.first, span.last, words=wish.align_to_words)
                best[chars] = max(best.get(chars, 0.0), span.score)
        answers = [
            Answer(answer=asked.context[begin:end], score=score, start=begin, end=end)
            for (begin, end), score in best.items()
        ]
        if wish.handle_impossible_answer:
            answers.append(Answer(answer="", score=none, start=0, end=0))
        return sorted(answers, key=lambda answer: -answer.score)[: wish.top_k]

    @property
    def _context_is(self) -> int:
        """Whether the context is the first (0) or second (1) of the two texts."""
        return 0 if self._encoder.tokenizer.padding_side == "left" else 1

    def _question(self, text: str, most: int) -> str:
        """Its first `most` tokens, as text."""
        # Short as it has to be: a token has more characters than this hardly ever.
        text = text.strip()[: most * 64]
        (row, *_) = self._encoder.windows(
            text, size=most + self._encoder.window - self._encoder.room(), stride=0
        )
        return text[: max(end for _, end in row.encoding.offsets)]

    def _of_context(self, row: Row) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each token whether it is one of the context."""
        return np.array([of == self._context_is for of in row.encoding.sequence_ids])

    def _characters(self, row: Row, first: int, last: int, *, words: bool) -> tuple[int, int]:
        """Where in the context a span begins and ends: whole words, if that is wished."""
        encoding = row.encoding
        if words:
            of = encoding.word_ids
            sequences = encoding.sequence_ids
            while first > 0 and sequences[first - 1] == self._context_is and _same(of, first, first - 1):
                first -= 1
            while (
                last + 1 < len(of) and sequences[last + 1] == self._context_is and _same(of, last, last + 1)
            ):
                last += 1
        return encoding.offsets[first][0], encoding.offsets[last][1]


def _same(words: Sequence[int | None], one: int, other: int) -> bool:
    return words[one] is not None and words[one] == words[other]
