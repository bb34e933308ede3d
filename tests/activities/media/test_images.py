from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from activities.backends.media.images import MOST_PIXELS, read_image, write_image, write_mask
from goatherd.errors import UnreadableMedia
from tests.activities.media.files import drawing, image_file


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_each_format_is_read(form: str) -> None:
    image = read_image(image_file(drawing(), form))
    assert (image.mode, image.size) == ("RGB", (64, 48))
    red, green, blue = image.getpixel((0, 0))
    assert red > 200
    assert green < 60
    assert 40 < blue < 140


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "RGB"])
def test_pixels_are_those_of_transformers(mode: str) -> None:
    from transformers.image_utils import load_image

    data = image_file(drawing().convert(mode))
    # As `load_image` does by itself for a file or an address.
    assert np.array_equal(read_image(data), load_image(Image.open(io.BytesIO(data))))


def test_cmyk_is_read() -> None:
    assert read_image(image_file(drawing().convert("CMYK"), "JPEG")).getpixel((0, 0))[0] > 200


def test_palette_with_transparent_colours_is_read() -> None:
    image = drawing().convert("P")
    assert read_image(image_file(image, transparency=bytes(range(256)))).mode == "RGB"


def test_transparent_pixels_keep_their_colour() -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 0))
    assert read_image(image_file(image)).getpixel((1, 1)) == (200, 100, 50)


@pytest.mark.parametrize(("value", "grey"), [(0, 0), (30_000, 116), (65_535, 255)])
def test_16_bits_are_scaled_to_8(value: int, grey: int) -> None:
    data = image_file(Image.fromarray(np.full((4, 4), value, dtype=np.uint16)))
    assert read_image(data).getpixel((1, 1)) == (grey, grey, grey)


def test_16_bits_of_colour_are_read() -> None:
    row = b"\0" + struct.pack(">3H", 65_535, 32_768, 0) * 2

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    assert read_image(png).getpixel((0, 0)) == (255, 128, 0)


def test_image_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned to the right by a quarter when it was taken.
    assert read_image(image_file(drawing(), "JPEG", exif=exif)).size == (48, 64)


def test_first_image_of_an_animation_is_read() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = image_file(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).getpixel((0, 0)) == (255, 0, 0)


def test_4k_and_one_pixel_are_read() -> None:
    assert read_image(image_file(drawing(3840, 2160), "JPEG")).size == (3840, 2160)
    assert read_image(image_file(drawing(1, 1))).size == (1, 1)


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"", "nothing: the file is empty"),
        (b"goats are no images", r"19 bytes that begin with b'goats are no'"),
        (image_file(drawing())[:100], r"a PNG image, 100 bytes .*truncated"),
        (image_file(drawing(), "JPEG")[:300], r"a JPEG image, 300 bytes"),
        (b"RIFF\0\0\0\0WAVEfmt ", "a WAV sound"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "24 bytes that begin with"),
        (b"<svg/>", "an SVG drawing"),
        (b"data:image/png;base64,iVBORw0KGgo=", "a data URL: send what it holds"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_seen(data: bytes, seen: str) -> None:
    with pytest.raises(UnreadableMedia, match=seen):
        read_image(data)


def test_changed_bytes_are_refused_or_read_but_never_crash() -> None:
    data = bytearray(image_file(drawing()))
    refused = 0
    for place in range(8, len(data), 3):
        changed = bytes(data[:place]) + bytes([data[place] ^ 0xFF]) + bytes(data[place + 1 :])
        try:
            assert read_image(changed).mode == "RGB"
        except UnreadableMedia:
            refused += 1
    assert refused > 20


def test_huge_image_in_a_small_file_is_not_decoded() -> None:
    bomb = image_file(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 200_000
    with pytest.raises(UnreadableMedia, match=f"at most {MOST_PIXELS:,}"):
        read_image(bomb)
    with pytest.raises(UnreadableMedia, match=r"8,001 x 10,000 pixels"):
        read_image(image_file(Image.new("1", (8_001, 10_000))))


def test_image_is_written_and_read_back() -> None:
    assert np.array_equal(read_image(write_image(drawing())), drawing())


def test_mask_is_a_png_of_one_channel() -> None:
    mask = np.zeros((30, 20), dtype=bool)
    mask[:10] = True
    image = Image.open(io.BytesIO(base64.b64decode(write_mask(mask))))
    assert (image.format, image.mode, image.size) == ("PNG", "L", (20, 30))
    assert np.array_equal(np.asarray(image) == 255, mask)
