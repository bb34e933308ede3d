"""What nobody should send, and too much of it, to real and tiny models behind a whole Goatherd."""

from __future__ import annotations

import io
import random
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import soundfile
from PIL import Image

from activities.backends.media.audio import Sound
from tests.activities.media.files import drawing, image_file, photograph, sound_file
from tests.e2e.real import library
from tests.e2e.real.answers import QUIET, array_of, close, tensors_call
from tests.e2e.real.house import House
from tests.models.text import CITIES, opinion

pytestmark = [pytest.mark.model, *QUIET]
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


async def test_thousand_texts_in_one_call(served: House, http: httpx.AsyncClient) -> None:
    texts = [f"{opinion(random.Random(n))[0]} {'and ' * (n % 600)}" for n in range(1_000)]
    found = await http.post("/models/sentiment", json={"inputs": texts, "parameters": {"top_k": 1}})
    assert found.status_code == 200, found.text[:500]
    pipe = library.pipeline("text-classification", served.folders["sentiment"])
    for n in range(0, 1_000, 53):
        (wanted,) = pipe(texts[n], top_k=1, truncation=True)
        ((one,),) = [found.json()[n]]
        assert one["label"] == wanted["label"]
        assert close(one["score"], wanted["score"])
    many = [f"{CITIES[n % 8]} {n}" for n in range(1_000)]
    async with served.async_openai() as client:
        vectors = await client.embeddings.create(model="all-minilm-l6-v2", input=many)
    assert len(vectors.data) == 1_000
    folder = served.folders["all-minilm-l6-v2"]
    assert all(close(vectors.data[n].embedding, library.vector(folder, many[n])) for n in (0, 499, 999))


async def test_empty_and_huge_texts(served: House) -> None:
    cases: list[tuple[str, str, tuple[Any, ...]]] = [
        ("sentiment", "text_classification", ("",)),
        ("all-minilm-l6-v2", "feature_extraction", ("",)),
        ("all-minilm-l6-v2", "feature_extraction", ([],)),
        ("mlm", "fill_mask", ("",)),
        ("mlm", "fill_mask", ("no gap",)),
        ("ner", "token_classification", ("",)),
        ("nli", "zero_shot_classification", ("", ["a"])),
        ("nli", "zero_shot_classification", ("text", [])),
        ("qa", "question_answering", ("", "")),
        ("tapas", "table_question_answering", ({}, "how old?")),
        ("t5", "summarization", ("",)),
        ("smollm2", "text_generation", ("",)),
        ("smollm2", "chat_completion", ([],)),
        ("diffusion", "text_to_image", ("",)),
        ("joe-us", "text_to_speech", ("",)),
        ("joe-us", "text_to_speech", ("...",)),
        ("smollm2", "text_generation", ("goat " * 20_000,)),
        ("diffusion", "text_to_image", ("goat " * 20_000,)),
        ("joe-us", "text_to_speech", ("goat " * 20_000,)),
        ("sentiment", "text_classification", ("x" * 1_000_001,)),
        ("mlm", "fill_mask", ("goat " * 1_000 + "[MASK]",)),
    ]
    for model, method, args in cases:
        assert (await served.refused(model, method, *args))[:3] in ("413", "422"), (model, str(args)[:40])
    huge = "goat " * 190_000
    pipe = library.pipeline("text-classification", served.folders["sentiment"])
    found = await served.hf("sentiment", "text_classification", huge)
    assert close(found[0].score, pipe(huge[:2_000], truncation=True)[0]["score"])
    assert (await served.hf("all-minilm-l6-v2", "feature_extraction", huge)).shape == (384,)
    assert isinstance(await served.hf("ner", "token_classification", huge), list)


async def test_wrong_tasks_and_unknown_parameters(served: House, http: httpx.AsyncClient) -> None:
    for model, task, method, args in (
        ("sentiment", "fill-mask", "fill_mask", ("a [MASK]",)),
        ("all-minilm-l6-v2", "text-generation", "text_generation", ("a",)),
        ("efficientnet-lite0", "automatic-speech-recognition", "automatic_speech_recognition", (b"RIFF",)),
        ("smollm2", "summarization", "summarization", ("a",)),
        ("faces", "image-segmentation", "image_segmentation", (image_file(drawing()),)),
    ):
        said = await served.refused(model, method, *args, task=task)
        assert model in said or task in said, said
    for model in ("sentiment", "t5", "yolos", "all-minilm-l6-v2"):
        answer = await http.post(f"/models/{model}", json={"inputs": "a", "parameters": {"no_such": 1}})
        assert answer.status_code == 422
        assert "no_such" in answer.json()["error"]
    async with served.async_openai() as client:
        for model, wish in (("sentiment", {}), ("smollm2", {"extra_body": {"no_such": 1}}), ("no-such", {})):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model=model, messages=QUESTION, **wish)  # type: ignore[call-overload]
            assert caught.value.status_code in (400, 404, 422)
            assert caught.value.body
        with pytest.raises(openai.UnprocessableEntityError):
            await client.embeddings.create(model="smollm2", input="a")


async def test_large_and_corrupt_images(served: House) -> None:
    coffee = photograph("coffee.png")
    large = library.image(coffee).resize((3_840, 2_160))
    for form in ("PNG", "JPEG"):
        # With parameters the client sends base64 in JSON, without it sends the file itself.
        data = image_file(large, form)
        for wish in ({}, {"top_k": 1}):
            found = await served.hf("efficientnet-lite0", "image_classification", data, **wish)
            assert found[0].label == "espresso"
    wide = image_file(drawing(3_840, 2_160), "JPEG")
    (segment, *_) = await served.hf("segformer", "image_segmentation", wide)
    assert segment.mask.size == (3_840, 2_160)
    await served.hf("yolos", "object_detection", wide)
    flipped = bytearray(coffee)
    flipped[len(coffee) // 2] ^= 0xFF
    huge = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(huge, "PNG")
    for data in (
        b"",
        coffee[:5_000],
        bytes(flipped),
        coffee[:8],
        b"goat",
        huge.getvalue(),
        coffee[:16] + b"\xff" * 8 + coffee[24:],
    ):
        for model, method in (
            ("efficientnet-lite0", "image_classification"),
            ("yolos", "object_detection"),
            ("segformer", "image_segmentation"),
            ("faces", "object_detection"),
        ):
            said = await served.refused(model, method, data)
            assert said[:3] == "422", (said, data[:20])


async def test_corrupt_sounds(served: House, speech: bytes) -> None:
    nan = io.BytesIO()

    soundfile.write(nan, np.full(16_000, np.nan, dtype=np.float32), 16_000, format="WAV", subtype="FLOAT")
    silent = sound_file(Sound(np.zeros(0, dtype=np.float32), 16_000))
    lying = speech[:24] + (0).to_bytes(4, "little") + speech[28:]
    for data in (b"", b"goat", speech[:20], silent, lying, nan.getvalue()):
        for model, method in (
            ("whisper-tiny.en", "automatic_speech_recognition"),
            ("ctc", "automatic_speech_recognition"),
            ("wav2vec2", "audio_classification"),
        ):
            said = await served.refused(model, method, data)
            assert said[:3] == "422", (said, data[:20])
    # Cut off: what there is, is heard, as by all who play sounds.
    cut = await served.hf("wav2vec2", "audio_classification", speech[: len(speech) // 2])
    assert len(cut) == 3


async def test_numbers_that_are_none(served: House, http: httpx.AsyncClient) -> None:
    for model, method in (("broken/sentiment", "text_classification"), ("broken/t5", "summarization")):
        said = await served.refused(model, method, "goat")
        assert "NaN" in said, said
    wave = np.full((1, 43_844, 1), np.nan, dtype="<f4")
    wanted = library.tensors(library.package_file("basic_pitch", "nmp.tflite"), {"input_2": wave})
    made = await http.post("/models/pitch", json=tensors_call(input_2=wave))
    found = {name: array_of(one) for name, one in made.json()["tensors"].items()}
    assert all(np.allclose(found[name], wanted[name], equal_nan=True, atol=1e-4) for name in wanted)
    for wrong in (wave[:, :5], wave.astype("<f8"), np.zeros((1, 0, 1), dtype="<f4")):
        answer = await http.post("/models/pitch", json=tensors_call(input_2=wrong))
        assert answer.status_code == 422
        assert "input_2" in answer.json()["error"]
    answer = await http.post("/models/pitch", json=tensors_call(other=wave))
    assert answer.status_code == 422
