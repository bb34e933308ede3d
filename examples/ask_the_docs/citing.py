"""What the model is asked, and what it cites."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_CITED = re.compile(r"\[(\d+(?:\s*[,;]\s*\d+)*)\]")
_CODE_FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)

_HOW = (
    "Answer from these passages only, in one or two sentences. After each write the number of the passage "
    "that it is from, such as [1]. If they do not tell, say so."
)

Hit = Mapping[str, Any]


def prompt(question: str, hits: Sequence[Hit]) -> str:
    """The passages with numbers, how to answer, and the question."""
    passages = "\n\n".join(f"[{number}] {closed(hit['text'].strip())}" for number, hit in enumerate(hits, 1))
    return f"{passages}\n\n{_HOW}\n\nQuestion: {question}"


def closed(text: str) -> str:
    """With the end of a code block that begins in it: a passage may be cut anywhere."""
    return text if len(_CODE_FENCE.findall(text)) % 2 == 0 else f"{text}\n```"


EXAMPLE = (
    prompt(
        "How do I have the barn cleaned?",
        [
            {"text": "The barn has two doors, and a window to the south."},
            {"text": "`barn clean --by NAME` has somebody clean the barn. It is done within a day."},
        ],
    ),
    "Run `barn clean --by NAME`, which has somebody clean the barn within a day [2].",
)
"""Asked and answered before: a small model does as it sees it done."""


def cited(answer: str, count: int) -> list[int]:
    """The numbers of passages that it cites, in the order in which it does; there are `count` of them."""
    numbers = (int(number) for group in _CITED.findall(answer) for number in re.split(r"\s*[,;]\s*", group))
    return [number for number in dict.fromkeys(numbers) if 1 <= number <= count]


def sources(answer: str, hits: Sequence[Hit]) -> list[str]:
    """A line for each passage that is cited; all of them, and that they are not cited, if none is."""
    numbers = cited(answer, len(hits))
    lines = [source(number, hits[number - 1]) for number in numbers or range(1, len(hits) + 1)]
    return lines if numbers else ["The answer cites none of the passages that it had:", *lines]


def source(number: int, hit: Hit) -> str:
    title = hit["metadata"].get("title", "")
    return f"[{number}] {hit['id']}, characters {hit['start']:,} to {hit['end']:,}: {title}".rstrip(": ")
