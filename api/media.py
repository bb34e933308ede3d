"""Images and sounds on their way in and out: raw, in forms, and in base64."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from api.errors import BodyTooLarge
from goatherd.contracts.inference_tasks import Media
from goatherd.errors import Invalid

_DATA_URI = re.compile(r"data:([^;,]*)(?:;[^;,]*)*;base64,")

_KINDS = {
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
    "wav": "audio/wav",
}
_MAGIC = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"RIFF", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
)


@dataclass(frozen=True, slots=True)
class MediaLimit:
    """How large one may be."""

    most: int

    def check(self, size: int) -> None:
        if size > self.most:
            raise BodyTooLarge(f"The file has {size} bytes; up to {self.most} are taken.")

    def from_raw(self, data: bytes, mime: str | None, *, pointer: str | None = None) -> Media:
        """As a task's input. Raises `Invalid`, `BodyTooLarge`."""
        if not data:
            raise Invalid("The file is empty.", pointer=pointer)
        self.check(len(data))
        return Media(data=data, mime=mime)

    def from_text(self, text: object, *, pointer: str) -> Media:
        """As a task's input, from base64 or a `data:` URI. Raises `Invalid`, `BodyTooLarge`."""
        if not isinstance(text, str) or not text:
            raise Invalid("Has to be an image or a sound in base64.", pointer=pointer)
        mime = None
        if uri := _DATA_URI.match(text):
            mime, text = uri.group(1) or None, text[uri.end() :]
        data = _decoded(text)
        if data is None:
            # Lines of it, maybe.
            data = _decoded("".join(text.split()))
        if data is None:
            raise Invalid("Has to be an image or a sound in base64.", pointer=pointer)
        if not data:
            raise Invalid("The file is empty.", pointer=pointer)
        self.check(len(data))
        return Media(data=data, mime=mime)


def _decoded(text: str) -> bytes | None:
    """None if it is no base64. Its padding may be left out."""
    try:
        return binascii.a2b_base64(text.encode("ascii") + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        return None


def mime_of(media: Media, format: str | None = None) -> str:
    """What it is: as its maker says, else by the format that was asked for, else by how it begins."""
    if media.mime:
        return media.mime
    if format is not None:
        return _KINDS[format]
    known = (mime for magic, mime in _MAGIC if media.data.startswith(magic))
    return next(known, "application/octet-stream")
