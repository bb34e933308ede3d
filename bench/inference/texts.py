"""Texts to compute with: prose of this project's own documentation, of the lengths that people send."""

from __future__ import annotations

import random
import re
from pathlib import Path

SHORTEST, LONGEST = 5, 120
"""Words."""
_DOCS = Path(__file__).parents[2] / "docs"


def mixed(count: int, seed: int) -> list[str]:
    """So many different texts, of lengths that are all as likely. The same seed gives the same texts."""
    luck = random.Random(seed)
    prose = "\n".join(page.read_text() for page in sorted(_DOCS.rglob("*.md")))
    words = re.findall(r"[A-Za-z']+[.,;:]?", prose)
    made = []
    for _ in range(count):
        size = luck.randint(SHORTEST, LONGEST)
        begin = luck.randrange(len(words) - size)
        made.append(" ".join(words[begin : begin + size]))
    return made
