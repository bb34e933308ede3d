"""The phonemes of texts by eSpeak NG, in a process of its own: `python -m activities.backends._espeak`.

Of its own since eSpeak keeps one state for a whole process, is licensed otherwise (GPL-3) than what calls it,
and may crash. It reads one JSON object a line, `{"voice": "en-us", "text": "…"}`, and writes
`{"clauses": [["həlˈoʊ", ","], …]}` or `{"error": "…"}`; its first line is `{}` or an error.

The library is that of the package `espeakng-loader`, or the system's (`libespeak-ng.so.1`).
Source of the calls and constants: eSpeak NG's `speak_lib.h`.
"""

from __future__ import annotations

import ctypes
import json
import re
import sys
from typing import Any

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: nothing is played.
_DONT_EXIT = 0x8000
_UTF8 = 1
_IPA = 2

# What ends a clause. Behind it eSpeak has read on, to the next clause's first character.
_END = re.compile(r"""([.,;:!?…。，、；：！？])["'»”’)\]\s]*\S?$""")
_LAST = re.compile(r"""([.,;:!?…。，、；：！？])["'»”’)\]\s]*$""")
_PLAIN = {"…": ".", "。": ".", "，": ",", "、": ",", "；": ";", "：": ":", "！": "!", "？": "?"}


class _Espeak:
    def __init__(self) -> None:
        library, data = _find()
        self._library = library
        if library.espeak_Initialize(_RETRIEVAL, 0, data, _DONT_EXIT) < 0:
            raise OSError("eSpeak NG does not find its data")
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]

    def clauses(self, voice: str, text: str) -> list[tuple[str, str]]:
        """Phonemes and the mark at the end (or nothing) of each clause."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        raw = text.replace("\0", " ").encode()
        kept = ctypes.create_string_buffer(raw)
        begin = ctypes.addressof(kept)
        at = ctypes.c_void_p(begin)
        found = []
        while at.value:
            start = at.value - begin
            phonemes = self._library.espeak_TextToPhonemes(ctypes.byref(at), _UTF8, _IPA)
            read = raw[start : at.value - begin if at.value else len(raw)].decode(errors="ignore")
            mark = (_END if at.value else _LAST).search(read)
            # Marks of a switch to another language, as in "(en)", are no phonemes.
            said = re.sub(r"\([^)]*\)", "", (phonemes or b"").decode()).strip()
            if said:
                found.append((said, _PLAIN.get(mark[1], mark[1]) if mark else ""))
        return found


def _find() -> tuple[Any, bytes | None]:
    try:
        import espeakng_loader
    except ImportError:
        return ctypes.CDLL("libespeak-ng.so.1"), None
    return ctypes.CDLL(espeakng_loader.get_library_path()), espeakng_loader.get_data_path().encode()


def main() -> None:
    def say(answer: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    try:
        espeak = _Espeak()
    except OSError as error:
        say({"error": str(error)})
        return
    say({})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            say({"clauses": espeak.clauses(asked["voice"], asked["text"])})
        except ValueError as error:
            say({"error": str(error)})


if __name__ == "__main__":
    main()
