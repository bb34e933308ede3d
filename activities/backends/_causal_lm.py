"""A causal language model in this process: torch and transformers, blocking. Import it only to load one.

The decode loop is our own, not transformers' `generate` nor its continuous batching. Both draw from torch's
global generator, so that a seed given for one reply disturbs, and is disturbed by, the others of the process;
the prefill of `generate` is one call that nothing can stop; and a reply resumed from its text has to draw at
each position what the first attempt drew there. What is left of `generate` is short.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from activities.backends import _steps
from activities.backends._reply import Reply, Shown
from activities.backends._sampling import Sampling, log_probability
from activities.backends._steps import KeyValueRow, LoneRow, rows_fit
from activities.backends._text import Detokenizer, StopFilter
from activities.backends._window import fit
from activities.backends.hf.loading import memory_errors_translated, memory_of, pretrained
from activities.ports import ChatRequest
from goatherd.contracts.inference import ChatTurn, Generation, ModelSpec
from goatherd.errors import Invalid, Unavailable, WrongTask

# Tokens of one prefill step. Between two of them a reply can be cancelled, and others are written. Bigger
# ones are faster: by 10 % from 128 to 512 on two cores.
_PREFILL_CPU = 128
_PREFILL_GPU = 1024
# Attention's part of a step grows with the tokens before it; from here on steps shrink to last about as long.
_PREFILL_FLAT = 2048

# A resumed reply of up to so many tokens is read as it was made, token by token, and so goes on exactly as it
# would have. Read in steps, which is 10 to 20 times as fast, each sum is rounded otherwise, and in bfloat16
# near ties are so common that 4 of 10 replies went on in other words (in float32 1 of 90). A longer one is
# read in steps all the same: nobody should wait longer than about three seconds for it.
_REPLAYED = 96

_DEFAULT_MAX_TOKENS = 512
# For the few models without a limit of their own.
_DEFAULT_WINDOW = 8192
# Two prompts of unlike length, to see that steps in rows compute what the model computes.
_TRIALS = ("Hello", "Goats eat grass, and")
# As far as the scores of one and of the other may differ, as a part of the largest: bfloat16 rounds to 1/256.
_ALIKE = 0.05


class CausalLM:
    """A loaded model. `begin` may be called in any thread, `read_on` and `write_on` in one at a time."""

    def __init__(self, model: Any, tokenizer: Any, defaults: Generation) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._own = model.generation_config
        self._device: torch.device = model.device
        text_config = model.config.get_text_config(decoder=True)
        self.window: int = getattr(text_config, "max_position_embeddings", None) or _DEFAULT_WINDOW
        ends = self._own.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self._ends = {end for end in (*ends, tokenizer.eos_token_id) if end is not None}
        self._special = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False))
        self._front = self._what_is_in_front()
        self.in_rows = False
        """Whether several replies are one step."""
        self.memory_bytes = memory_of(model)

    @classmethod
    def load(cls, folder: Path, spec: ModelSpec) -> CausalLM:
        """Loads a folder in Hugging Face form; its weights stay mapped to the file where the dtype allows.

        Raises:
            OSError, ValueError: the folder's content is not a model that generates text.
            Unavailable: there is not enough memory.
        """
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = pretrained(AutoModelForCausalLM, spec, folder)
        loaded = cls(model, tokenizer, spec.generation)
        with memory_errors_translated():
            # The first call reads the weights and builds kernels, too: not for the first user to wait for.
            loaded.in_rows = loaded._try_rows()
        return loaded

    @property
    def talks(self) -> bool:
        """Whether it has a template for conversations; else it only goes on from a text."""
        return bool(self._tokenizer.chat_template)

    # -- before it is computed

    def begin(self, request: ChatRequest, show: Callable[[Shown], None]) -> Reply:
        """What a request comes to. Computes no more than tokens.

        Raises:
            Invalid: the turns or the prompt don't fit the window (`too-long`), or the template refuses them.
            WrongTask: there are turns, and the model has no template for them.
        """
        wish, spec = request.generation, self._defaults
        most = _first(wish.max_tokens, spec.max_tokens, self._own.max_new_tokens, _DEFAULT_MAX_TOKENS)
        if request.prompt is None:
            ids, begun = self._talk(request, most)
        else:
            ids, begun = self._text(request, request.prompt)
        before = len(ids) - begun
        return Reply(
            ids,
            begun=begun,
            most=min(most, self.window - before),
            prefilled=before if begun <= _REPLAYED else len(ids),
            sampling=self._sampling(request),
            text=Detokenizer(self._decode, ids),
            stops=StopFilter(_first(wish.stop, spec.stop, [])),
            details=request.details,
            show=show,
        )

    def _talk(self, request: ChatRequest, most: int) -> tuple[list[int], int]:
        """The tokens of a conversation and of the reply's prefix, and how many are the prefix's."""
        if not self.talks:
            raise WrongTask(
                "the model has no chat template: it goes on from a text, and holds no conversation"
            )
        # The prefix is left out of the reckoning, so that a resumed reply sees the turns that it began with.
        turns = fit(
            request.turns,
            count=lambda turns: len(self._encode(self._render(turns))),
            window=self.window,
            reply=most,
        )
        rendered = self._render(turns)
        before = len(self._encode(rendered))
        ids = self._encode(rendered + request.prefix)
        return ids, len(ids) - before

    def _text(self, request: ChatRequest, prompt: str) -> tuple[list[int], int]:
        """The same of a text, after what the tokenizer puts in front of texts."""
        plain = self._encode(prompt)
        front = self._front
        cut = max(0, len(plain) - request.prompt_tokens) if request.prompt_tokens is not None else 0
        before = len(front) + len(plain) - cut
        if before >= self.window:
            raise Invalid(
                f"the prompt is too long: it is {before} tokens, and the model sees at most {self.window}, "
                "what it generates included",
                code="too-long",
                pointer="/inputs",
            )
        if not before:
            raise Invalid("there is nothing to go on from: the prompt is empty", pointer="/inputs")
        ids = front + self._encode(prompt + request.prefix)[cut:]
        return ids, len(ids) - before

    def _render(self, turns: list[ChatTurn]) -> str:
        try:
            rendered = self._tokenizer.apply_chat_template(
                [turn.model_dump() for turn in turns], tokenize=False, add_generation_prompt=True
            )
        except jinja2.TemplateError as error:
            raise Invalid(f"the model's chat template refuses these turns: {error}") from error
        return str(rendered)

    def _encode(self, text: str) -> list[int]:
        # The template has written the special tokens already.
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _what_is_in_front(self) -> list[int]:
        """The special tokens that the tokenizer begins a text with."""
        whole, plain = list(self._tokenizer(_TRIALS[0])["input_ids"]), self._encode(_TRIALS[0])
        at = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
        return whole[:at]

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _sampling(self, request: ChatRequest) -> Sampling:
        own, spec, wish = self._own, self._defaults, request.generation
        natural = _first(own.temperature, 1.0) if own.do_sample else 0.0
        return Sampling(
            temperature=_first(wish.temperature, spec.temperature, natural),
            top_p=_first(wish.top_p, spec.top_p, own.top_p, 1.0),
            top_k=_first(wish.top_k, spec.top_k, own.top_k, 0),
            repetition_penalty=_first(
                wish.repetition_penalty, spec.repetition_penalty, own.repetition_penalty, 1.0
            ),
            seed=_first(wish.seed, spec.seed, secrets.randbits(63)),
            frequency_penalty=float(request.passed_on.get("frequency_penalty") or 0),
            presence_penalty=float(request.passed_on.get("presence_penalty") or 0),
        )

    # -- computed

    def read_on(self, reply: Reply) -> bool:
        """Reads a piece of the prompt; with the last one the reply's first token is chosen. True if it was
        the last one.

        Raises:
            Unavailable: there is not enough memory.
        """
        if reply.full:
            reply.finish("length")
            return True
        if reply.cache is None:
            reply.cache = DynamicCache(config=self._model.config)
        step = min(_prefill_step(reply.read, self._device), reply.prefilled - reply.read)
        with memory_errors_translated():
            scores = self._forward(reply.ids[reply.read : reply.read + step], reply.cache)
        reply.read += step
        if reply.read < reply.prefilled:
            return False
        reply.row = self._row(reply.cache)
        reply.cache = None
        self._take(reply, scores)
        return True

    def write_on(self, replies: list[Reply]) -> list[Reply]:
        """Makes one token of each. Returns those that are done, be it for an error of their own."""
        able = []
        for reply in replies:
            assert reply.row is not None
            try:
                with memory_errors_translated():
                    reply.row.make_room()
            except Unavailable as error:
                reply.fail(error)
            else:
                able.append(reply)
        for together in [able] if self.in_rows and able else [[reply] for reply in able]:
            try:
                with memory_errors_translated():
                    scores = self._step(together)
            except Unavailable as error:
                # The longest takes most. The others are as they were, and go on with the next step.
                max(together, key=lambda reply: reply.read).fail(error)
                continue
            for reply, row in zip(together, scores, strict=True):
                reply.read += 1
                try:
                    self._take(reply, row)
                except Exception as error:  # of this one's tokens or wishes, whatever it is
                    reply.fail(error)
        return [reply for reply in replies if reply.ended]

    def _step(self, replies: list[Reply]) -> Sequence[torch.Tensor]:
        """Scores of each reply's next token. If it raises, a reply that was not alone is as before."""
        tokens = [reply.ids[reply.read] for reply in replies]
        if self.in_rows:
            rows = [reply.row for reply in replies]
            return list(_steps.step(self._model, rows, tokens))  # type: ignore[arg-type]
        [reply] = replies
        return [self._forward(tokens, reply.row.cache)]  # type: ignore[union-attr]

    def _take(self, reply: Reply, scores: torch.Tensor) -> None:
        """Chooses the next token, unless the reply has it already."""
        if reply.read < len(reply.ids):
            return
        token = reply.sampling.choose(scores, reply.ids, reply.made)
        logprob = log_probability(scores, token) if reply.details else 0.0
        reply.take(token, self._special.get(token, ""), ends=token in self._ends, logprob=logprob)

    def _row(self, cache: DynamicCache) -> KeyValueRow | LoneRow:
        return KeyValueRow(cache) if self.in_rows else LoneRow(cache)

    @torch.inference_mode()
    def _forward(self, ids: list[int], cache: DynamicCache) -> torch.Tensor:
        """Scores of the token after `ids`, of shape [vocabulary]; `cache` takes up what it computed."""
        output = self._model(
            input_ids=torch.tensor([ids], device=self._device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        scores: torch.Tensor = output.logits[0, -1]
        return scores

    def _try_rows(self) -> bool:
        """Whether steps in rows compute what the model does. It is set to compute so, or not."""
        prompts = [self._encode(text) for text in _TRIALS]
        caches = [DynamicCache(config=self._model.config) for _ in prompts]
        tokens = [int(self._forward(ids, cache).argmax()) for ids, cache in zip(prompts, caches, strict=True)]
        if not all(map(rows_fit, caches)) or not _steps.install(self._model):
            return False
        with suppress(Exception):  # whatever a model does that rows don't have
            # The rows and the model both go on from here: neither changes the tensors that the caches hold.
            rows = [KeyValueRow(cache) for cache in caches]
            alone = [self._forward([token], cache) for token, cache in zip(tokens, caches, strict=True)]
            for row in rows:
                row.make_room()
            together = _steps.step(self._model, rows, tokens)
            if all(_alike(one, other) for one, other in zip(alone, together, strict=True)):
                return True
        _steps.uninstall(self._model)
        return False


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    one, other = one.float(), other.float()
    return bool((one - other).abs().max() <= _ALIKE * one.abs().max())


def _prefill_step(read: int, device: torch.device) -> int:
    # A function of the position alone: if it depended on the time, so would the rounding, and then the reply.
    step = _PREFILL_CPU if device.type == "cpu" else _PREFILL_GPU
    return max(32, step * _PREFILL_FLAT // max(_PREFILL_FLAT, read))


def _first(*wishes: Any) -> Any:
    """The first that is not None."""
    return next((wish for wish in wishes if wish is not None), None)
