"""A causal language model in this process: torch and transformers, blocking. Import it only to load one.

The decode loop is our own, not transformers' `generate`, for three reasons. `generate` draws from torch's
global generator, so that a seed given for one reply disturbs, and is disturbed by, the others of the process;
its prefill is one call that nothing can stop; and a reply resumed from its text has to draw at each position
what the first attempt drew there. What is left of `generate` for one sequence is short.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor
from transformers.utils import logging

from activities.backends._text import Detokenizer, StopFilter
from activities.backends._window import fit
from activities.ports import ChatRequest
from goatherd.contracts.inference import ChatTurn, Chunk, Finish, Generation, ModelSpec, Usage
from goatherd.errors import Invalid, Unavailable

# Tokens of one prefill step. Between two of them a reply can be cancelled. Bigger ones are faster: by 10 %
# from 128 to 512 on two cores.
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
# Nearly every nucleus is found in so many of the likeliest tokens, without sorting the whole vocabulary.
_NUCLEUS = 1024
# Below this, sampling is greedy, and dividing by it may overflow.
_COLD = 1e-5


@dataclass(frozen=True, slots=True)
class _Sampling:
    """How tokens are chosen. All is settled: the request's wish, else the spec's, else the model's own."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int


@dataclass(frozen=True, slots=True)
class _Prompt:
    """`ids` is the prompt and then `begun` tokens of the reply; the reply has `most` tokens at most."""

    ids: list[int]
    begun: int
    most: int


class CausalLM:
    """A loaded model. `reply` may run in several threads at once."""

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

    @classmethod
    def load(cls, folder: Path, spec: ModelSpec, *, threads: int | None = None) -> CausalLM:
        """Loads a folder in Hugging Face form; its weights stay mapped to the file where the dtype allows.

        Raises:
            OSError, ValueError: the folder's content is not a model that talks.
            Unavailable: there is not enough memory.
        """
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        if threads:
            torch.set_num_threads(threads)
        device = torch.device(_device(spec.device))
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if not tokenizer.chat_template:
            raise ValueError("it has no chat template, so it can't hold a conversation")
        with _memory_errors_translated():
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=choose_dtype(spec.dtype, device)
            )
            loaded = cls(model.to(device).eval(), tokenizer, spec.generation)
            # The first call reads the weights and builds kernels: not for the first user to wait for.
            loaded._forward(loaded._encode("Hello"), DynamicCache(config=model.config))
        return loaded

    def reply(self, request: ChatRequest, cancelled: threading.Event) -> Iterator[Chunk | Finish]:
        """Yields the text after the request's prefix as it is made, then a `Finish`. Ends if `cancelled`.

        Raises:
            Invalid: the turns don't fit the window (`too-long`), or the model's template refuses them.
            Unavailable: there is not enough memory.
        """
        wish = request.generation
        prompt = self._prompt(request)
        text = Detokenizer(self._decode, prompt.ids)
        shown = StopFilter((wish.stop if wish.stop is not None else self._defaults.stop) or [])
        made = prompt.begun
        reason: Literal["stop", "length"] = "length"
        held = True
        with _memory_errors_translated():
            for token in self._tokens(prompt, self._sampling(wish), cancelled):
                made += 1
                if token in self._ends:
                    reason = "stop"
                    break
                piece, met = shown.push(text.push(token))
                if piece:
                    yield Chunk(text=piece)
                if met:
                    reason, held = "stop", False
                    break
        if cancelled.is_set():
            return
        if held and (rest := shown.flush()):
            yield Chunk(text=rest)
        usage = Usage(prompt_tokens=len(prompt.ids) - prompt.begun, completion_tokens=made)
        yield Finish(reason=reason, usage=usage)

    def _prompt(self, request: ChatRequest) -> _Prompt:
        most = _first(
            request.generation.max_tokens,
            self._defaults.max_tokens,
            self._own.max_new_tokens,
            _DEFAULT_MAX_TOKENS,
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
        return _Prompt(ids=ids, begun=len(ids) - before, most=min(most, self.window - before))

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

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _sampling(self, wish: Generation) -> _Sampling:
        own, spec = self._own, self._defaults
        natural = _first(own.temperature, 1.0) if own.do_sample else 0.0
        return _Sampling(
            temperature=_first(wish.temperature, spec.temperature, natural),
            top_p=_first(wish.top_p, spec.top_p, own.top_p, 1.0),
            top_k=own.top_k or 0,
            repetition_penalty=_first(own.repetition_penalty, 1.0),
            seed=_first(wish.seed, spec.seed, secrets.randbits(63)),
        )

    def _tokens(self, prompt: _Prompt, sampling: _Sampling, cancelled: threading.Event) -> Iterator[int]:
        if prompt.begun >= prompt.most:
            return
        ids = list(prompt.ids)
        cache = DynamicCache(config=self._model.config)
        prefilled = len(ids) - prompt.begun if prompt.begun <= _REPLAYED else len(ids)
        read = 0
        while read < len(ids):
            if cancelled.is_set():
                return
            step = min(_prefill_step(read, self._device), prefilled - read) if read < prefilled else 1
            scores = self._forward(ids[read : read + step], cache)
            read += step
        for position in range(prompt.begun, prompt.most):
            if position > prompt.begun:
                scores = self._forward(ids[-1:], cache)
            if cancelled.is_set():
                return
            ids.append(self._choose(scores, ids, sampling, position))
            yield ids[-1]

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

    @torch.inference_mode()
    def _choose(self, scores: torch.Tensor, ids: list[int], sampling: _Sampling, position: int) -> int:
        if sampling.repetition_penalty != 1.0:
            penalize = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
            seen = torch.tensor([ids], device=scores.device)
            scores = penalize(seen, scores[None].float())[0]
        if sampling.temperature < _COLD:
            return int(scores.argmax())
        # One draw by seed and position, not the next of a sequence: a resumed reply draws the same.
        luck = random.Random(f"{sampling.seed}:{position}").random()
        return draw(scores / sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, luck=luck)


def draw(scores: torch.Tensor, *, top_k: int, top_p: float, luck: float) -> int:
    """A token drawn from the nucleus of a distribution.

    Args:
        scores: unnormalized log-probabilities, of shape [vocabulary].
        top_k: only the so many likeliest tokens are drawn from; 0 for all.
        top_p: the nucleus is the fewest tokens whose probabilities add up to this (Holtzman et al. 2020).
        luck: uniform in [0, 1); decides.
    """
    scores = scores.float()
    size = len(scores)
    if top_k:
        best, tokens = scores.topk(min(top_k, size))
        total = best.logsumexp(0)
    else:
        total = scores.logsumexp(0)
        best, tokens = scores, torch.arange(size)
        if top_p < 1:
            best, tokens = scores.topk(min(_NUCLEUS, size))
            if float((best - total).exp().sum()) < top_p:
                best, tokens = scores.sort(descending=True)
    mass = (best - total).exp().double().cumsum(0)
    nucleus = mass[: int((mass < top_p).sum()) + 1]
    drawn = int((nucleus <= luck * nucleus[-1]).sum())
    return int(tokens[min(drawn, len(nucleus) - 1)])


def choose_dtype(wish: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in. `auto`: bfloat16 where the device computes in it, else float32.

    Measured with SmolLM2-135M on two cores with AVX512-BF16: bfloat16 decodes 1.3 times and prefills twice as
    fast as float32, and takes 250 MB less. A CPU without such instructions emulates it, slowly.
    """
    if wish != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wish]
    if device.type == "cpu":
        able = torch.cpu.get_capabilities()
        return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32
    return torch.bfloat16


def _device(wish: str) -> str:
    if wish != "auto":
        return wish
    return "cuda" if torch.cuda.is_available() else "cpu"


def _prefill_step(read: int, device: torch.device) -> int:
    # A function of the position alone: if it depended on the time, so would the rounding, and then the reply.
    step = _PREFILL_CPU if device.type == "cpu" else _PREFILL_GPU
    return max(32, step * _PREFILL_FLAT // max(_PREFILL_FLAT, read))


@contextmanager
def _memory_errors_translated() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError.
        if type(error) is RuntimeError and "allocate memory" not in str(error):
            raise
        raise Unavailable("not enough memory for the model", code="out-of-memory", retry_after_s=5) from error


def _first(*wishes: Any) -> Any:
    """The first that is not None."""
    return next((wish for wish in wishes if wish is not None), None)
