"""`image-classification` with a real model; detection and segmentation with random weights, whose answers
mean nothing: tested is that they are the pipeline's, and their form."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image

from activities.backends.hf import masks
from activities.inference_ports import LoadedModel
from examples.models.demo import prepare
from goatherd.contracts.inference_tasks import Task
from goatherd.errors import Invalid, ModelBroken, Unavailable, UnreadableMedia, WrongTask
from goatherd.settings import Settings
from tests.activities.hf.media_calls import item, loaded, run
from tests.activities.media.files import drawing, image_file, photograph
from tests.models.unlearned import unlearned

CLASSES = Task.IMAGE_CLASSIFICATION
BOXES = Task.OBJECT_DETECTION
SEGMENTS = Task.IMAGE_SEGMENTATION


@pytest.fixture(scope="module")
def efficientnet() -> LoadedModel:
    spec = prepare("efficientnet-lite0", Settings().cache / "demo")
    return loaded(Path(spec.source), CLASSES, options=spec.options)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    return {name: unlearned(folder, name) for name in ("yolos", "segformer", "maskformer")}


@pytest.fixture(scope="module")
def yolos(weights: dict[str, Path]) -> LoadedModel:
    return loaded(weights["yolos"], BOXES)


@pytest.fixture(scope="module", params=["segformer", "maskformer"])
def segmenter(request: pytest.FixtureRequest, weights: dict[str, Path]) -> LoadedModel:
    return loaded(weights[request.param], SEGMENTS)


def pipe_of(model: LoadedModel) -> Any:
    runner: Any = model.runner(model.tasks[0])
    return runner._pipe


@pytest.mark.model
class TestRealClassification:
    def test_espresso_and_cat_are_recognized_in_one_batch(self, efficientnet: LoadedModel) -> None:
        coffee, cat = run(
            efficientnet,
            [item(CLASSES, photograph("coffee.png")), item(CLASSES, photograph("chelsea.png"), top_k=3)],
        )
        assert coffee[0].label == "espresso"
        assert coffee[0].score > 0.9
        assert len(coffee) == 5
        assert "cat" in cat[0].label
        assert len(cat) == 3

    def test_results_are_those_of_the_pipeline(self, efficientnet: LoadedModel) -> None:
        files = [photograph("coffee.png"), photograph("rocket.jpg"), image_file(drawing())]
        got = run(efficientnet, [item(CLASSES, data) for data in files])
        for labels, data in zip(got, files, strict=True):
            expected = pipe_of(efficientnet)(Image.open(io.BytesIO(data)))
            assert [one.label for one in labels] == [one["label"] for one in expected]
            assert [one.score for one in labels] == pytest.approx(
                [one["score"] for one in expected], abs=1e-5
            )

    def test_parameters_are_each_items_own(self, efficientnet: LoadedModel) -> None:
        data = photograph("coffee.png")
        plain, raw, one = run(
            efficientnet,
            [
                item(CLASSES, data),
                item(CLASSES, data, function_to_apply="none", top_k=1),
                item(CLASSES, data, function_to_apply="sigmoid", top_k=1),
            ],
        )
        assert plain[0].score < 1 < raw[0].score
        assert one[0].score == pytest.approx(1 / (1 + np.exp(-raw[0].score)))

    def test_bad_file_fails_alone(self, efficientnet: LoadedModel) -> None:
        good, bad, empty, cut = run(
            efficientnet,
            [
                item(CLASSES, photograph("coffee.png")),
                item(CLASSES, b"no image"),
                item(CLASSES, b""),
                item(CLASSES, photograph("coffee.png")[:5_000]),
            ],
        )
        assert good[0].label == "espresso"
        assert [type(one) for one in (bad, empty, cut)] == [UnreadableMedia] * 3

    def test_4k_one_pixel_alpha_cmyk_palette_and_16_bit_images_are_classified(
        self, efficientnet: LoadedModel
    ) -> None:
        images = [
            image_file(Image.open(io.BytesIO(photograph("coffee.png"))).resize((3840, 2160)), "JPEG"),
            image_file(drawing(1, 1)),
            image_file(drawing(700, 1)),
            image_file(drawing(1, 700)),
            image_file(drawing().convert("RGBA")),
            image_file(drawing().convert("CMYK"), "JPEG"),
            image_file(drawing().convert("P")),
            image_file(Image.fromarray(np.full((40, 40), 9_000, dtype=np.uint16))),
        ]
        got = run(efficientnet, [item(CLASSES, data) for data in images])
        assert got[0][0].label == "espresso"
        assert all(len(labels) == 5 for labels in got)

    def test_nothing_is_computed_for_nobody(self, efficientnet: LoadedModel) -> None:
        cancelled = Event()
        cancelled.set()
        (got,) = run(efficientnet, [item(CLASSES, photograph("coffee.png"))], cancelled)
        assert isinstance(got, Unavailable)

    def test_memory_is_that_of_its_weights(self, efficientnet: LoadedModel) -> None:
        assert 18e6 < efficientnet.memory_bytes < 20e6

    def test_other_tasks_are_refused(self, efficientnet: LoadedModel) -> None:
        with pytest.raises(WrongTask):
            efficientnet.runner(BOXES)


def test_model_of_another_task_is_not_loaded(weights: dict[str, Path]) -> None:
    with pytest.raises(ModelBroken, match="models of type 'yolos' are not for image-segmentation"):
        loaded(weights["yolos"], SEGMENTS)


def test_detections_are_those_of_the_pipeline(yolos: LoadedModel) -> None:
    files = [image_file(drawing()), image_file(drawing(100, 40)), image_file(drawing().rotate(90))]
    got = run(yolos, [item(BOXES, data, threshold=0.1) for data in files])
    assert any(got)
    for found, data in zip(got, files, strict=True):
        expected = pipe_of(yolos)(Image.open(io.BytesIO(data)), threshold=0.1)
        assert [one.model_dump(exclude={"keypoints", "score"}) for one in found] == [
            {"label": one["label"], "box": one["box"]} for one in expected
        ]
        assert [one.score for one in found] == pytest.approx([one["score"] for one in expected], abs=1e-5)


def test_threshold_is_each_items_own(yolos: LoadedModel) -> None:
    data = image_file(drawing())
    all_of_them, none = run(yolos, [item(BOXES, data, threshold=0), item(BOXES, data, threshold=1)])
    assert len(all_of_them) == 6
    assert none == []


def test_images_of_one_size_are_computed_together(
    yolos: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, sizes = pipe_of(yolos), []
    forward = pipe.forward

    def counting(inputs: Any) -> Any:
        sizes.append(len(inputs["pixel_values"]))
        return forward(inputs)

    monkeypatch.setattr(pipe, "forward", counting)
    same, other = image_file(drawing()), image_file(drawing(100, 40))
    run(yolos, [item(BOXES, data) for data in (same, other, same, same)])
    assert sizes == [3, 1]


def mask_of(segment: Any) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(segment.mask))))


def subtasks(model: LoadedModel) -> list[str]:
    return (
        ["semantic"]
        if "Segformer" in type(pipe_of(model).model).__name__
        else ["panoptic", "instance", "semantic"]
    )


def test_segments_are_those_of_the_pipeline(segmenter: LoadedModel) -> None:
    files = [image_file(drawing()), image_file(drawing(50, 100))]
    for subtask in subtasks(segmenter):
        asked: dict[str, Any] = {"subtask": subtask, "threshold": 0.0, "mask_threshold": 0.1}
        asked["overlap_mask_area_threshold"] = 0.0
        got = run(segmenter, [item(SEGMENTS, data, **asked) for data in files])
        assert any(got), subtask
        for segments, data in zip(got, files, strict=True):
            expected = pipe_of(segmenter)(Image.open(io.BytesIO(data)), **asked)
            assert [one.label for one in segments] == [one["label"] for one in expected]
            for one, other in zip(segments, expected, strict=True):
                assert one.score == (
                    None if other["score"] is None else pytest.approx(other["score"], abs=1e-5)
                )
                # Where two scores are nearly equal, a batch may round otherwise than one image.
                assert (mask_of(one) == np.asarray(other["mask"])).mean() > 0.99


def test_subtask_that_the_model_has_not_is_refused_alone(weights: dict[str, Path]) -> None:
    model = loaded(weights["segformer"], SEGMENTS)
    data = image_file(drawing())
    bad, good = run(model, [item(SEGMENTS, data, subtask="panoptic"), item(SEGMENTS, data)])
    assert isinstance(bad, Invalid)
    assert bad.message == "the model has no panoptic segmentation, but semantic"
    assert bad.pointer == "/parameters/subtask"
    assert good


def test_scores_of_labels_are_compared_a_few_at_a_time(
    segmenter: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = item(SEGMENTS, image_file(drawing(200, 100)), subtask="semantic")
    (at_once,) = run(segmenter, [asked])
    monkeypatch.setattr(masks, "MOST_SCORES", 1)
    (one_by_one,) = run(segmenter, [asked])
    assert one_by_one == at_once


def test_masks_of_a_large_image_are_as_large_as_the_image(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(weights["maskformer"], SEGMENTS)
    monkeypatch.setattr(masks, "MOST_SCORES", 10_000)
    asked: dict[str, Any] = {"threshold": 0.0, "mask_threshold": 0.1, "overlap_mask_area_threshold": 0.0}
    (got,) = run(model, [item(SEGMENTS, image_file(drawing(400, 300)), **asked)])
    assert got
    assert {mask_of(one).shape for one in got} == {(300, 400)}


def test_4k_and_one_pixel_are_segmented_and_detected(segmenter: LoadedModel, yolos: LoadedModel) -> None:
    large, small = image_file(drawing(3840, 2160), "JPEG"), image_file(drawing(1, 1))
    for task, model in ((SEGMENTS, segmenter), (BOXES, yolos)):
        got = run(model, [item(task, large), item(task, small)])
        assert all(isinstance(one, list) for one in got)
    got = run(
        segmenter, [item(SEGMENTS, large, subtask="semantic"), item(SEGMENTS, small, subtask="semantic")]
    )
    assert [mask_of(one[0]).shape for one in got] == [(2160, 3840), (1, 1)]


def test_batch_weighs_what_the_model_sees(yolos: LoadedModel) -> None:
    assert yolos.runner(BOXES).weigh(item(BOXES, image_file(drawing(3840, 2160)))) == 32 * 64 // 256
