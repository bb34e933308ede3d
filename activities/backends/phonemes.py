"""Texts as sentences of phonemes, asked of a process that runs eSpeak NG."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from contextlib import suppress
from threading import Lock
from typing import Any

from goatherd.errors import Invalid, Unavailable

_ENDS = (".", "!", "?")
_REMEDY = "pip install goatherd[speech], or the system's package espeak-ng"


class Phonemizer:
    """Starts its process when it is first asked, and again if it has died. For any thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def sentences(self, voice: str, text: str) -> list[list[str]]:
        """The phonemes of each sentence, one character each, accents by themselves, with its marks.

        Raises:
            Invalid: there is no such voice.
            Unavailable: eSpeak NG is not here (`model-unavailable`).
        """
        with self._lock:
            answer = self._ask({"voice": voice, "text": text})
        if "error" in answer:
            raise Invalid(answer["error"])
        found: list[list[str]] = []
        ended = True
        for phonemes, mark in answer["clauses"]:
            if ended:
                found.append([])
            ended = mark in _ENDS
            said = phonemes + mark + ("" if ended else " ")
            found[-1] += unicodedata.normalize("NFD", said)
        if found and found[-1][-1] == " ":
            found[-1].pop()
        return found

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, question: dict[str, str]) -> dict[str, Any]:
        for _ in range(2):
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
                if line := process.stdout.readline():
                    answer: dict[str, Any] = json.loads(line)
                    return answer
            except BrokenPipeError:
                pass
            self._end()
        raise Unavailable("eSpeak NG can't read the text: its process died of it twice", retry_after_s=60)

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "activities.backends._espeak"]
        self._process = process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        why = json.loads(line).get("error") if line else "its process died"
        if why:
            self._end()
            raise Unavailable(f"eSpeak NG can't be used ({why}): {_REMEDY}", code="model-unavailable")
        return process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # It ends when its input does.
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
