"""python -m examples.labeling http://127.0.0.1:8080 [labelled.jsonl]"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx

from examples.labeling import http as routes
from examples.labeling import lexicon, neighbours
from examples.labeling.agreement import cohen_kappa, fleiss_kappa
from examples.labeling.model import Reader

SENTENCES = Path(__file__).with_name("sentences.jsonl")
UNDECIDED = "undecided"


async def label(url: str, *, model: str | None = None) -> dict[str, Any]:
    """Has the sentences labelled by three workers; gives the labels and the figures."""
    examples = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    async with httpx.AsyncClient(base_url=url, timeout=routes.TIMEOUT) as http:
        task = await routes.create(
            http,
            {
                "title": "Is the writer content?",
                "overlap": 3,
                "consensus": "majority",
                "lease_s": 30,
                "labels": ["example:labeling"],
                # The truth stays here.
                "subtasks": [{"key": one["key"], "input": {"text": one["text"]}} for one in examples],
            },
        )
        print(f"{task}: {len(examples)} sentences, three workers. `goatherd task watch {task}` shows them.")
        reader = Reader(http, model=model)
        await asyncio.gather(
            routes.work(http, task, "lexicon", lexicon.answer),
            routes.work(http, task, "neighbours", neighbours.from_file().answer),
            routes.work(http, task, reader.name, reader.answer),
        )
        subtasks = await routes.all_subtasks(http, task)
    truth = {one["key"]: one["truth"] for one in examples}
    labelled = [_labelled(subtask) for subtask in subtasks]
    return {"task": task, "labelled": labelled, **figures(labelled, truth)}


def _labelled(subtask: dict[str, Any]) -> dict[str, Any]:
    verdict = subtask["verdict"]
    return {
        "key": subtask["key"],
        "text": subtask["input"]["text"],
        "label": subtask["result"] if verdict["agreed"] else UNDECIDED,
        "votes": {answer["worker"]: answer["result"] for answer in subtask["answers"]},
        "verdict": verdict,
    }


def figures(labelled: Sequence[dict[str, Any]], truth: dict[str, str]) -> dict[str, Any]:
    """How far the workers agree, and how often each, and their verdict, is right."""
    workers = sorted(labelled[0]["votes"])
    said = {worker: [line["votes"][worker] for line in labelled] for worker in workers}
    right = [truth[line["key"]] for line in labelled]
    votes = [[line["votes"][worker] for worker in workers] for line in labelled]
    return {
        "accuracy": {worker: _accuracy(said[worker], right) for worker in workers}
        | {"verdict": _accuracy([line["label"] for line in labelled], right)},
        "fleiss": fleiss_kappa(votes),
        "cohen": {f"{a} and {b}": cohen_kappa(said[a], said[b]) for a, b in combinations(workers, 2)},
        "disagreements": [line for line in labelled if len(set(line["votes"].values())) > 1],
    }


def _accuracy(said: Sequence[str], right: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(said, right, strict=True)) / len(right)


def _print(found: dict[str, Any], out: Path) -> None:
    split = found["disagreements"]
    print(f"\n{len(split)} of {len(found['labelled'])} are not unanimous:")
    for line in split:
        votes = ", ".join(f"{worker} {vote}" for worker, vote in sorted(line["votes"].items()))
        print(f"  {line['label']:<9} {line['text']}\n            {votes}")
    print("\nagreement beyond chance (1: always, 0: as chance would have it)")
    for pair, kappa in found["cohen"].items():
        print(f"  {kappa:5.2f}  {pair} (Cohen's kappa)")
    print(f"  {found['fleiss']:5.2f}  all (Fleiss' kappa)")
    print("\naccuracy against the labels held out")
    for who, accuracy in found["accuracy"].items():
        print(f"  {accuracy:5.0%}  {who}")
    print(f"\nThe labelled sentences are in {out}.")


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    out = Path(arguments[1] if len(arguments) == 2 else "labelled.jsonl")
    found = asyncio.run(label(arguments[0]))
    lines = (json.dumps(line, ensure_ascii=False) + "\n" for line in found["labelled"])
    out.write_text("".join(lines), encoding="utf-8")
    _print(found, out)


if __name__ == "__main__":
    main(sys.argv[1:])
