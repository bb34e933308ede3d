"""What a file looks like, for messages about files that can't be decoded."""

from __future__ import annotations

_SIGNS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (8, b"WAVE", "a WAV sound"),
    (0, b"fLaC", "a FLAC sound"),
    (0, b"OggS", "an Ogg sound"),
    (0, b"ID3", "an MP3 sound"),
    (4, b"ftypM4A", "an M4A sound"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftyp", "an MP4 film"),
    (0, b"\x1aE\xdf\xa3", "a WebM or Matroska film"),
    (8, b"AIFF", "an AIFF sound"),
    (0, b"#!AMR", "an AMR sound"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<", "a text (HTML or XML)"),
    (0, b"{", "a text (JSON)"),
    (0, b"data:", "a data URL: send what it holds"),
)


def seen(data: bytes) -> str:
    """`a PNG image of 1,024 bytes`; `15 bytes that begin with b'goat goat'`; `nothing`."""
    if not data:
        return "nothing: the file is empty"
    for at, sign, name in _SIGNS:
        if data[at : at + len(sign)] == sign:
            return f"{name}, {len(data):,} bytes"
    if len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return f"an MP3 sound, {len(data):,} bytes"
    return f"{len(data):,} bytes that begin with {data[:12]!r}"
