"""The provider `tflite` on small graphs of which one knows what they compute."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from activities.backends.tflite import TFLiteProvider
from activities.backends.tflite.files import find_graph
from goatherd.contracts.inference import Bounds, ModelSpec
from goatherd.contracts.inference_tasks import Media, Task, Tensor, Tensors
from goatherd.contracts.providers import TFLiteOptions
from goatherd.errors import GoatherdError, Invalid, ModelBroken, Unavailable, UnreadableMedia, WrongTask
from tests.activities.remote.loading import item, loaded, outputs, run
from tests.activities.tflite import graphs

IMAGES = Task.IMAGE_CLASSIFICATION
RGB = ["red", "green", "blue"]


def spec_of(file: Path, task: Task, /, **options: Any) -> ModelSpec:
    return ModelSpec(provider="tflite", source=str(file), task=task, options=options)


def picture(color: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Media:
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "PNG")
    return Media(data=out.getvalue())


def sound(samples: Any, rate: int = 16_000) -> Media:
    out = io.BytesIO()
    soundfile.write(out, np.asarray(samples, dtype=np.float32), rate, format="WAV", subtype="FLOAT")
    return Media(data=out.getvalue())


def tensor(values: Any, dtype: Any = "float32") -> Tensor:
    array = np.asarray(values, dtype=dtype)
    return Tensor(dtype=array.dtype.name, shape=list(array.shape), data=array.tobytes())


def array_of(one: Tensor) -> Any:
    return np.frombuffer(one.data, dtype=one.dtype).reshape(one.shape)


@pytest.mark.parametrize("make", [graphs.colors, graphs.quantized_colors])
async def test_color_of_an_image_is_seen_through_any_numbers(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    async with loaded(TFLiteProvider(), spec_of(make(tmp_path / "m.tflite"), IMAGES, labels=RGB)) as model:
        assert list(model.tasks) == [IMAGES, Task.TENSORS]
        assert model.memory_bytes > 0
        [made] = await outputs(model, IMAGES, item(IMAGES, picture((255, 128, 0)), top_k=2))
    assert [one.label for one in made] == ["red", "green"]
    low, high = (0.0, 1.0) if make is graphs.quantized_colors else (-1.0, 1.0)
    green = low + (high - low) * 128 / 255
    assert [one.score for one in made] == pytest.approx([high, green], abs=0.01)


async def test_raw_scores_become_probabilities_where_that_is_wished_for(tmp_path: Path) -> None:
    spec = spec_of(graphs.colors(tmp_path / "m.tflite"), IMAGES, labels=RGB, activation="softmax")
    async with loaded(TFLiteProvider(), spec) as model:
        plain, sigmoid = await outputs(
            model,
            IMAGES,
            item(IMAGES, picture((255, 0, 0))),
            item(IMAGES, picture((255, 0, 0)), function_to_apply="sigmoid"),
        )
    assert sum(one.score for one in plain) == pytest.approx(1)
    assert sigmoid[0].score == pytest.approx(1 / (1 + np.exp(-1)))


async def test_resizing_decides_what_of_an_image_is_seen(tmp_path: Path) -> None:
    file = graphs.colors(tmp_path / "m.tflite")
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 255, 0), (10, 0, 20, 10))
    out = io.BytesIO()
    wide.save(out, "PNG")
    first: dict[str, str] = {}
    for resize in ("crop", "stretch", "letterbox"):
        async with loaded(TFLiteProvider(), spec_of(file, IMAGES, labels=RGB, resize=resize)) as model:
            [made] = await outputs(model, IMAGES, item(IMAGES, Media(data=out.getvalue())))
            first[resize] = made[0].label
    assert first == {"crop": "green", "stretch": "red", "letterbox": "red"}


async def test_broken_image_fails_alone(tmp_path: Path) -> None:
    async with loaded(TFLiteProvider(), spec_of(graphs.colors(tmp_path / "m.tflite"), IMAGES)) as model:
        good, bad = item(IMAGES, picture((9, 9, 9))), item(IMAGES, Media(data=b"\x89PNG\r\n\x1a\nxx"))
        first, second, third = await run(model, IMAGES, good, bad, good)
    assert isinstance(second, UnreadableMedia)
    assert not isinstance(first, GoatherdError)
    assert not isinstance(third, GoatherdError)


async def test_cancelled_batch_stops(tmp_path: Path) -> None:
    async with loaded(TFLiteProvider(), spec_of(graphs.colors(tmp_path / "m.tflite"), IMAGES)) as model:
        cancelled = Event()
        cancelled.set()
        runner: Any = model.runner(IMAGES)
        [result] = runner.run([item(IMAGES, picture((1, 2, 3)))], cancelled)
    assert isinstance(result, Unavailable)


async def test_labels_come_from_a_file_or_from_the_graph_itself(tmp_path: Path) -> None:
    file = graphs.colors(tmp_path / "m.tflite")
    (tmp_path / "colors.txt").write_text("rouge\nvert\nbleu\n")
    async with loaded(TFLiteProvider(), spec_of(file, IMAGES, labels="colors.txt")) as model:
        [made] = await outputs(model, IMAGES, item(IMAGES, picture((0, 0, 255)), top_k=1))
        assert made[0].label == "bleu"
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "rot\ngrün\nblau\n")
    async with loaded(TFLiteProvider(), spec_of(file, IMAGES)) as model:
        [made] = await outputs(model, IMAGES, item(IMAGES, picture((0, 255, 0)), top_k=1))
        assert made[0].label == "grün"


async def test_class_without_a_label_has_its_number(tmp_path: Path) -> None:
    async with loaded(TFLiteProvider(), spec_of(graphs.colors(tmp_path / "m.tflite"), IMAGES)) as model:
        [made] = await outputs(model, IMAGES, item(IMAGES, picture((0, 0, 255)), top_k=1))
    assert made[0].label == "2"


async def test_boxes_of_a_detector_are_in_the_images_pixels(tmp_path: Path) -> None:
    task = Task.OBJECT_DETECTION
    scores = np.array([[0.9, 0.0], [0.2, 0.7], [0.3, 0.0]], dtype=np.float32)
    found = [(0.25, 0.25, 0.5, 0.5), (0.75, 0.5, 0.4, 0.8), (0.5, 0.9, 0.1, 0.1)]
    file = graphs.boxes(tmp_path / "m.tflite", found, scores)
    async with loaded(TFLiteProvider(), spec_of(file, task, labels=["goat", "sheep"])) as model:
        [made] = await outputs(model, task, item(task, picture((1, 2, 3), (200, 100))))
        [few] = await outputs(model, task, item(task, picture((1, 2, 3), (200, 100)), threshold=0.8))
    assert [(one.label, round(one.score, 2)) for one in made] == [("goat", 0.9), ("sheep", 0.7)]
    assert made[0].box.model_dump() == {"xmin": 0, "ymin": 0, "xmax": 100, "ymax": 50}
    assert made[1].box.model_dump() == {"xmin": 20, "ymin": 55, "xmax": 180, "ymax": 95}
    assert [one.label for one in few] == ["goat"]


async def test_long_sound_goes_through_in_windows(tmp_path: Path) -> None:
    task = Task.AUDIO_CLASSIFICATION
    file = graphs.loudness(tmp_path / "m.tflite")
    half = np.concatenate([np.full(400, 0.8), np.zeros(400)])
    scores = {}
    for pooling in ("mean", "max"):
        spec = spec_of(file, task, labels=["quiet", "loud"], pooling=pooling)
        async with loaded(TFLiteProvider(), spec) as model:
            [made] = await outputs(model, task, item(task, sound(half)))
            scores[pooling] = {one.label: one.score for one in made}
            [short] = await outputs(model, task, item(task, sound(np.full(100, 0.8))))
            assert {one.label: one.score for one in short}["loud"] == pytest.approx(0.2, abs=0.01)
    assert scores["mean"] == pytest.approx({"quiet": 0.5, "loud": 0.4}, abs=0.01)
    assert scores["max"] == pytest.approx({"quiet": 0.5, "loud": 0.8}, abs=0.01)


TENSORS = Task.TENSORS


@pytest.mark.parametrize("signature", ["add", None])
@pytest.mark.parametrize("rows", [1, 5])
async def test_tensors_go_by_name_with_any_batch(tmp_path: Path, signature: str | None, rows: int) -> None:
    file = graphs.sums(tmp_path / "m.tflite", signature=signature)
    names = ("a", "b", "sum") if signature else ("a_tensor", "b_tensor", "sum_tensor")
    a = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    given = Tensors(tensors={names[0]: tensor(a), names[1]: tensor(a * 10)})
    async with loaded(TFLiteProvider(), spec_of(file, TENSORS)) as model:
        [made] = await outputs(model, TENSORS, item(TENSORS, given))
    assert array_of(made.tensors[names[2]]).tolist() == (a * 11).tolist()


async def test_nan_and_infinity_pass(tmp_path: Path) -> None:
    given = Tensors(tensors={"a": tensor([[np.nan, np.inf, 1]]), "b": tensor([[1, 1, 1]])})
    async with loaded(TFLiteProvider(), spec_of(graphs.sums(tmp_path / "m.tflite"), TENSORS)) as model:
        [made] = await outputs(model, TENSORS, item(TENSORS, given))
    assert np.array_equal(array_of(made.tensors["sum"]), [[np.nan, np.inf, 2]], equal_nan=True)


ROW = tensor([[1, 2, 3]])


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"a": ROW}, "/inputs/tensors"),
        ({"a": ROW, "b": ROW, "c": ROW}, "/inputs/tensors/c"),
        ({"a": ROW, "b": tensor([[1, 2]])}, "/inputs/tensors/b/shape"),
        ({"a": ROW, "b": tensor([1, 2, 3])}, "/inputs/tensors/b/shape"),
        ({"a": ROW, "b": tensor(np.zeros((0, 3)))}, "/inputs/tensors/b/shape"),
        ({"a": ROW, "b": tensor([[1, 2, 3]], "int32")}, "/inputs/tensors/b/dtype"),
        ({"a": ROW, "b": ROW.model_copy(update={"data": b"1234"})}, "/inputs/tensors/b/data"),
        ({"a": ROW, "b": ROW.model_copy(update={"shape": [2**40, 3]})}, "/inputs/tensors/b/data"),
    ],
)
async def test_wrong_tensors_are_told_the_signature(
    tmp_path: Path, given: dict[str, Tensor], pointer: str
) -> None:
    async with loaded(TFLiteProvider(), spec_of(graphs.sums(tmp_path / "m.tflite"), TENSORS)) as model:
        right = item(TENSORS, Tensors(tensors={"a": ROW, "b": ROW}))
        wrong, after = await run(model, TENSORS, item(TENSORS, Tensors(tensors=given)), right)
    assert isinstance(wrong, Invalid)
    assert wrong.pointer == pointer
    assert "a: float32[?, 3]; b: float32[?, 3]; gives sum: float32[?, 3]" in wrong.message
    assert not isinstance(after, GoatherdError)


async def test_shapes_that_the_graph_cannot_join_leave_it_fit_for_the_next(tmp_path: Path) -> None:
    five = tensor(np.ones((5, 3)))
    two = tensor(np.ones((2, 3)))
    async with loaded(TFLiteProvider(), spec_of(graphs.sums(tmp_path / "m.tflite"), TENSORS)) as model:
        right = item(TENSORS, Tensors(tensors={"a": ROW, "b": ROW}))
        wrong, after = await run(model, TENSORS, item(TENSORS, Tensors(tensors={"a": five, "b": two})), right)
    assert isinstance(wrong, Invalid)
    assert not isinstance(after, GoatherdError)


async def test_unknown_signature_is_told_the_known_ones(tmp_path: Path) -> None:
    async with loaded(TFLiteProvider(), spec_of(graphs.sums(tmp_path / "m.tflite"), TENSORS)) as model:
        [wrong] = await run(
            model, TENSORS, item(TENSORS, Tensors(tensors={"a": ROW, "b": ROW}), signature="subtract")
        )
    assert isinstance(wrong, Invalid)
    assert "'add'" in wrong.message


async def test_quantized_tensors_stay_as_they_are_and_the_signature_says_their_scale(tmp_path: Path) -> None:
    file = graphs.quantized_colors(tmp_path / "m.tflite")
    white = tensor(np.full((1, 4, 4, 3), 127), "int8")
    async with loaded(TFLiteProvider(), spec_of(file, IMAGES)) as model:
        good = item(TENSORS, Tensors(tensors={"image": white}))
        bad = item(TENSORS, Tensors(tensors={"image": tensor(np.ones((1, 4, 4, 3)))}))
        [made] = await outputs(model, TENSORS, good)
        [wrong] = await run(model, TENSORS, bad)
    assert array_of(made.tensors["scores"]).tolist() == [[127, 127, 127]]
    assert isinstance(wrong, Invalid)
    assert "scale 0.00392157, zero point -128" in wrong.message


@pytest.mark.parametrize("content", [b"", b"no graph at all", b"\x1c\x00\x00\x00TFL3" + b"\xff" * 100])
async def test_file_that_is_no_graph_is_broken(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelBroken):
        async with loaded(TFLiteProvider(), spec_of(tmp_path / "m.tflite", TENSORS)):
            pass


async def test_graph_that_is_not_for_the_task_is_unavailable(tmp_path: Path) -> None:
    file = graphs.sums(tmp_path / "m.tflite")
    for task in (IMAGES, Task.OBJECT_DETECTION, Task.AUDIO_CLASSIFICATION):
        with pytest.raises(ModelBroken, match=r"a_tensor: float32\[\?, 3\]"):
            async with loaded(TFLiteProvider(), spec_of(file, task)):
                pass


async def test_folder_of_several_wants_to_know_which(tmp_path: Path) -> None:
    graphs.sums(tmp_path / "one.tflite")
    graphs.sums(tmp_path / "two.tflite")
    with pytest.raises(ModelBroken, match=r"one\.tflite, two\.tflite"):
        async with loaded(TFLiteProvider(), spec_of(tmp_path, TENSORS)):
            pass
    async with loaded(TFLiteProvider(), spec_of(tmp_path, TENSORS, file="two.tflite")) as model:
        assert list(model.tasks) == [TENSORS]


def test_check_knows_tasks_devices_and_options(tmp_path: Path) -> None:
    provider = TFLiteProvider()
    with pytest.raises(WrongTask):
        provider.check("m", spec_of(tmp_path, Task.FILL_MASK))
    for wrong, pointer in (({"std": 0}, "/options"), ({"anchors": 3}, "/options/anchors")):
        with pytest.raises(Invalid) as caught:
            provider.check("m", spec_of(tmp_path, IMAGES, **wrong))
        assert caught.value.pointer == pointer
    with pytest.raises(Invalid):
        provider.check("m", spec_of(tmp_path, IMAGES).model_copy(update={"device": "cuda"}))


def posted(source: Path, root: Path | None, /, **options: Any) -> ModelSpec:
    bounds = Bounds(root=None if root is None else str(root))
    return spec_of(source, IMAGES, **options).model_copy(update={"bounds": bounds})


async def test_labels_of_a_model_of_a_request_lie_beside_its_graph(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    graphs.colors(root / "m.tflite")
    (root / "colors.txt").write_text("rot\ngelb\nblau\n")
    (tmp_path / "key").write_text("hidden\nhidden\nhidden\n")
    async with loaded(TFLiteProvider(), posted(root, root, labels="colors.txt")) as model:
        [made] = await outputs(model, IMAGES, item(IMAGES, picture((255, 0, 0)), top_k=1))
    assert made[0].label == "rot"
    for labels in ("../key", str(tmp_path / "key"), ".."):
        with pytest.raises(ModelBroken) as caught:
            async with loaded(TFLiteProvider(), posted(root, root, labels=labels)):
                pass
        assert "hidden" not in caught.value.message


async def test_graph_of_a_request_is_sought_below_the_root_and_what_else_is_there_is_not_told(
    tmp_path: Path,
) -> None:
    for name in ("one.tflite", "two.tflite"):
        graphs.colors(tmp_path / name)
    for spec in (posted(Path("/"), None), posted(tmp_path, tmp_path / "models"), posted(tmp_path, tmp_path)):
        with pytest.raises(ModelBroken) as caught:
            async with loaded(TFLiteProvider(), spec):
                pass
        assert "one.tflite" not in caught.value.message


def test_what_the_file_system_says_is_an_error_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rglob", refuse)
    with pytest.raises(ModelBroken, match="Permission denied"):
        find_graph("m", spec_of(tmp_path, IMAGES), TFLiteOptions())
