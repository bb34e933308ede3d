"""Images between files and pixels, by Pillow.

Pixels are what transformers' own `load_image` gives for the file: turned as its EXIF says, three channels,
transparency dropped. One difference: 16-bit grey is scaled to 8 bits, where Pillow would cut it to white.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from activities.backends.media.kinds import seen
from goatherd.errors import UnreadableMedia

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 80_000_000
"""Of an image: 8k video is 33 million. A small file may claim to be a huge image; nothing of such a one is
decoded."""

# Formats whose decoders are in Pillow itself. Others start programs (EPS) or hold many images (PDF).
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_READ = "PNG, JPEG, WebP, GIF, BMP and TIFF are read"


def read_image(data: bytes) -> Image:
    """The file's (first) image, in RGB.

    Raises:
        UnreadableMedia: it is no image that can be decoded, or too large a one.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise UnreadableMedia(f"no image: {seen(data)}")
    try:
        image: Any = Image.open(io.BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise _too_large(f"{width:,} x {height:,} pixels")
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except UnreadableMedia:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large("far too many pixels") from error
    except Exception as error:
        # Decoders raise whatever a broken file leads them into: OSError, SyntaxError, struct.error …
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise UnreadableMedia(
            f"no image that can be decoded: it looks like {seen(data)}{why}; {_READ}"
        ) from error


def _too_large(what: str) -> UnreadableMedia:
    return UnreadableMedia(f"the image has {what}, and at most {MOST_PIXELS:,} are decoded")


def _rgb(image: Any) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):
        # 16 bits a pixel, whatever their order in memory: `I` is how Pillow holds all of them alike.
        wide: Any = image.convert("I")
        return Image.merge("RGB", [wide.point(lambda value: value / 257).convert("L")] * 3)
    if image.mode == "F":
        raise UnreadableMedia("the image's pixels are floating point numbers: send one of 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb: Image.Image = image.convert("RGB")
    return rgb


def write_image(image: Image, form: str = "PNG") -> bytes:
    """The image as a file: `PNG`, `JPEG` or `WEBP`."""
    out = io.BytesIO()
    image.save(out, format=form)
    return out.getvalue()


def write_mask(mask: Any) -> str:
    """A PNG of one channel, 255 where the array (height, width) is true, as base64."""
    import numpy as np
    from PIL import Image

    out = io.BytesIO()
    # As bits, then as bytes: a mask is mostly long runs, which the fastest compression takes as well.
    Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255).save(out, format="PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode("ascii")
