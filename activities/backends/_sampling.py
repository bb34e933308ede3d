"""How the next token of a reply is chosen from a model's scores. Imports torch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

# Nearly every nucleus is found in so many of the likeliest tokens, without sorting the whole vocabulary.
_NUCLEUS = 1024
# Below this, sampling is greedy, and dividing by it may overflow.
_COLD = 1e-5


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. All is settled: the request's wish, else the spec's, else the model's own."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0

    @torch.inference_mode()
    def choose(self, scores: torch.Tensor, ids: Sequence[int], position: int) -> int:
        """The token at a position of the reply, by the scores [vocabulary] that follow from `ids`.

        The penalties for frequency and presence are OpenAI's: for each time that a token is in the reply, and
        for being in it at all. That for repetition counts the prompt, too (Keskar et al. 2019).
        """
        if self.repetition_penalty != 1.0:
            penalize = RepetitionPenaltyLogitsProcessor(self.repetition_penalty)
            seen = torch.tensor([ids], device=scores.device)
            scores = penalize(seen, scores[None].float())[0]
        made = ids[len(ids) - position :]
        if made and (self.frequency_penalty or self.presence_penalty):
            counts = Counter(made)
            tokens = torch.tensor(list(counts), device=scores.device)
            often = torch.tensor(list(counts.values()), device=scores.device, dtype=torch.float32)
            penalty = often * self.frequency_penalty + self.presence_penalty
            scores = scores.float().index_add(0, tokens, penalty, alpha=-1)
        if self.temperature < _COLD:
            return int(scores.argmax())
        # One draw by seed and position, not the next of a sequence: a resumed reply draws the same.
        luck = random.Random(f"{self.seed}:{position}").random()
        return draw(scores / self.temperature, top_k=self.top_k, top_p=self.top_p, luck=luck)


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


def log_probability(scores: torch.Tensor, token: int) -> float:
    """Of a token by the model's own distribution, whatever the temperature and the other wishes."""
    with torch.inference_mode():
        scores = scores.float()
        return float(scores[token] - scores.logsumexp(0))
