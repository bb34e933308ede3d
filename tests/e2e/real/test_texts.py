"""Tasks of texts by real and tiny models behind a whole Goatherd: what the clients that people have are
answered is what the libraries give that are called directly. A TAPAS of random weights means nothing: there
only the equality counts.
"""

from __future__ import annotations

import base64
import random
from typing import Any

import httpx
import numpy as np
import pandas
import pytest

from tests.e2e.real import library
from tests.e2e.real.answers import ODD, QUIET, close
from tests.e2e.real.house import House
from tests.models.text import CITIES, about, asked, opinion, summary, tagged, translation

pytestmark = [pytest.mark.model, *QUIET]


async def test_fill_mask(served: House) -> None:
    pipe = library.pipeline("fill-mask", served.folders["mlm"])
    for text in ("anna lives in [MASK] .", "🐐 你好 [MASK]"):
        found = await served.hf("mlm", "fill_mask", text, top_k=3)
        wanted = pipe(text, top_k=3)
        assert [(one.token, one.token_str, one.sequence) for one in found] == [
            (one["token"], one["token_str"], one["sequence"]) for one in wanted
        ]
        assert close([one.score for one in found], [one["score"] for one in wanted])
    chosen = await served.hf("mlm", "fill_mask", "anna lives in [MASK] .", targets=CITIES)
    assert chosen[0].token_str == "paris"


async def test_text_classification(served: House) -> None:
    pipe = library.pipeline("text-classification", served.folders["sentiment"])
    for text in [*(opinion(random.Random(n))[0] for n in range(3)), *ODD]:
        found = await served.hf("sentiment", "text_classification", text)
        wanted = pipe(text, top_k=None, truncation=True)
        assert [one.label for one in found] == [one["label"] for one in wanted]
        assert close([one.score for one in found], [one["score"] for one in wanted])


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
async def test_token_classification(served: House, strategy: str) -> None:
    pipe = library.pipeline("token-classification", served.folders["ner"])
    for text in (" ".join(tagged(random.Random(3))[0]), ODD[1]):
        found = await served.hf("ner", "token_classification", text, aggregation_strategy=strategy)
        wanted = pipe(text, aggregation_strategy=strategy)
        assert [(one.entity_group or one.entity, one.word, one.start, one.end) for one in found] == [
            (one.get("entity_group") or one["entity"], one["word"], one["start"], one["end"])
            for one in wanted
        ]
        assert close([one.score for one in found], [one["score"] for one in wanted])


async def test_token_classification_by_a_real_model(served: House) -> None:
    text = "She have two dogs."
    wish: dict[str, Any] = {"aggregation_strategy": "none", "ignore_labels": ["$KEEP"]}
    found = await served.hf("quire-grammar", "token_classification", text, **wish)
    wanted = library.pipeline("token-classification", served.folders["quire-grammar"])(text, **wish)
    assert [(one.entity, one.word, one.start) for one in found] == [
        (one["entity"], one["word"], one["start"]) for one in wanted
    ]
    assert ("$REPLACE_has", "have") in [(one.entity, one.word) for one in found]
    assert close([one.score for one in found], [one["score"] for one in wanted])


@pytest.mark.parametrize("multi_label", [False, True])
async def test_zero_shot_classification(served: House, multi_label: bool) -> None:
    labels = ["sports", "cooking", "money"]
    wish = {"hypothesis_template": "this text is about {} .", "multi_label": multi_label}
    pipe = library.pipeline("zero-shot-classification", served.folders["nli"])
    for text in (about(random.Random(5))[0], ODD[2]):
        found = await served.hf("nli", "zero_shot_classification", text, labels, **wish)
        wanted = pipe(text, labels, **wish)
        assert [one.label for one in found] == wanted["labels"]
        assert close([one.score for one in found], wanted["scores"])


async def test_question_answering(served: House) -> None:
    case = next(case for n in range(50) if (case := asked(random.Random(n))).answer)
    for context in (case.context, "people walked home slowly . " * 80 + case.context):
        found = await served.hf(
            "qa", "question_answering", case.question, context, align_to_words=False, doc_stride=48
        )
        wanted = library.answer(served.folders["qa"], case.question, context)
        assert (found.answer, found.start, found.end) == (wanted["answer"], wanted["start"], wanted["end"])
        assert close(found.score, wanted["score"])
        assert found.answer == case.answer


async def test_table_question_answering(served: House) -> None:
    table = {"animal": ["goat", "horse", "sheep"], "age": ["2", "11", "7"]}
    pipe = library.pipeline("table-question-answering", served.folders["tapas"])
    for query in ("how old is the goat?", "🐐?"):
        found = await served.hf("tapas", "table_question_answering", table, query)
        wanted = pipe(table=pandas.DataFrame(table, dtype=object), query=query)
        assert (found.answer, [tuple(one) for one in found.coordinates], found.cells, found.aggregator) == (
            wanted["answer"],
            wanted["coordinates"],
            wanted["cells"],
            wanted.get("aggregator"),
        )


async def test_sentence_similarity(served: House) -> None:
    others = ["a kitten sleeps", "stocks fell in london", ODD[3]]
    found = await served.hf(
        "all-minilm-l6-v2", "sentence_similarity", "a cat is asleep", others, task="sentence-similarity"
    )
    folder = served.folders["all-minilm-l6-v2"]
    source = library.vector(folder, "a cat is asleep")
    assert close(found, [source @ library.vector(folder, other) for other in others])
    assert found[0] > found[1]


async def test_feature_extraction(served: House, http: httpx.AsyncClient) -> None:
    folder = served.folders["all-minilm-l6-v2"]
    texts = ["a cat is asleep", *ODD]
    wanted = np.stack([library.vector(folder, text) for text in texts])
    found = await served.hf("all-minilm-l6-v2", "feature_extraction", texts)
    assert close(found, wanted)
    assert close(await served.hf("all-minilm-l6-v2", "feature_extraction", texts[0]), wanted[0])
    part = wanted[0, :64] / np.linalg.norm(wanted[0, :64])
    assert close(await served.hf("all-minilm-l6-v2", "feature_extraction", texts[0], dimensions=64), part)
    tokens = library.hidden(folder, texts[0])
    for pooling, vectors in (
        ("none", tokens),
        ("cls", tokens[0]),
        ("max", tokens.max(0)),
        ("mean", tokens.mean(0)),
    ):
        body = {"inputs": texts[0], "pooling": pooling, "normalize": False}
        answer = await http.post("/models/all-minilm-l6-v2", json=body)
        assert close(np.array(answer.json()), vectors), pooling
    wish: dict[str, Any] = {"model": "all-minilm-l6-v2", "input": texts}
    # The client asks for base64 by itself, and reads it.
    for made in await served.openai(lambda client: client.embeddings.create(**wish)):
        assert close([one.embedding for one in made.data], wanted)
    for made in await served.openai(lambda client: client.embeddings.create(**wish, encoding_format="float")):
        assert close([one.embedding for one in made.data], wanted)
    for made in await served.openai(
        lambda client: client.embeddings.create(**wish, encoding_format="base64")
    ):
        read = [np.frombuffer(base64.b64decode(one.embedding), "<f4") for one in made.data]
        assert close(read, wanted)
    for made in await served.openai(
        lambda client: client.embeddings.create(model="all-minilm-l6-v2", input=texts[0], dimensions=64)
    ):
        assert close(made.data[0].embedding, part)


async def test_summarization_translation_and_text2text(served: House, http: httpx.AsyncClient) -> None:
    folder = served.folders["t5"]
    story, english = summary(random.Random(1))[0], translation(random.Random(1))[0]
    found = await served.hf("t5", "summarization", story, task="summarization")
    assert found.summary_text == library.written(folder, "summarize : " + story, max_length=40, num_beams=2)
    found = await served.hf("t5", "translation", english, src_lang="en", tgt_lang="fr", task="translation")
    prompt = "translate english to french : " + english
    assert found.translation_text == library.written(folder, prompt, max_length=40)
    wish = {"max_new_tokens": 5, "num_beams": 3}
    answer = await http.post("/models/t5", json={"inputs": [prompt, story], "parameters": wish})
    assert [one["generated_text"] for one in answer.json()] == [
        library.written(folder, text, **wish) for text in (prompt, story)
    ]
