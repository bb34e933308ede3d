"""A worker that counts words: good ones, bad ones, and what turns them round."""

from __future__ import annotations

import re

GOOD = {
    *("best", "better", "beautiful", "clean", "comfortable", "easy", "enjoy", "fair", "fresh", "friendly"),
    *("free", "good", "great", "happiness", "happy", "helpful", "joy", "kind", "laughed", "love", "lovely"),
    *("nice", "patient", "perfect", "quick", "recommend", "warm", "wonderful", "thank"),
}
BAD = {
    *("bad", "boring", "broke", "broken", "cold", "crashed", "dirty", "disappointed", "fell", "hard"),
    *("hungry", "impossible", "late", "leaked", "lost", "mess", "noise", "problem", "refused", "regret"),
    *("rude", "sad", "smelled", "terrible", "tired", "tiny", "ugly", "waste", "wet", "wrong"),
}
TURNS = {"no", "not", "never", "nobody", "nothing", "without", "hardly", "seldom"}
_REACH = 3
"""So many words after it are turned round."""


def label(text: str) -> str:
    """`unsure` if there are as many good as bad words."""
    words = re.findall(r"[a-z]+", text.lower())
    score = 0
    for at, word in enumerate(words):
        value = (word in GOOD) - (word in BAD)
        turned = any(before in TURNS for before in words[max(0, at - _REACH) : at])
        score += -value if turned else value
    return "positive" if score > 0 else "negative" if score < 0 else "unsure"


async def answer(sentence: dict[str, str]) -> str:
    return label(sentence["text"])
