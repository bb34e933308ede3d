"""Replies of one model that are made together: continuous batching.

A reply joins when it comes, if there is room, and leaves when it is done: nobody waits for a batch to end.
See docs/adr/0009-batched-generation.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from activities.backends._reply import Reply
from goatherd.errors import Unavailable

_log = logging.getLogger(__name__)

# While some replies are written and others' prompts are read, reading has so many parts of the time that
# writing has.
_READING = 2.0


class Writer(Protocol):
    """What makes replies, blocking: `CausalLM`."""

    def read_on(self, reply: Reply) -> bool:
        """Reads a piece of the prompt. True if that was all of it."""

    def write_on(self, replies: list[Reply]) -> list[Reply]:
        """Makes one token of each. Returns those that are done."""


class ReplyBatch:
    """Makes replies in a thread of its own, as many at once as it may; more wait, first come, first served.

    The thread works while there are replies. Between two pieces of work (a step of all replies, or a piece of
    one prompt) it looks who came and who left.
    """

    def __init__(self, writer: Writer, *, most: int, most_tokens: int) -> None:
        """`most_tokens`: of all replies together, prompts and all that they may still make counted. One of
        more goes alone."""
        self._writer = writer
        self._most = most
        self._most_tokens = most_tokens
        self._lock = threading.Lock()
        self._waiting: deque[Reply] = deque()
        self._reading: deque[Reply] = deque()
        self._writing: list[Reply] = []
        self._at_work = False
        self._closed = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replies")

    def add(self, reply: Reply) -> None:
        """Raises `Unavailable` if closed."""
        with self._lock:
            if self._closed:
                raise Unavailable("the worker is shutting down")
            self._waiting.append(reply)
            if not self._at_work:
                self._at_work = True
                self._thread.submit(self._work)

    def withdraw(self, reply: Reply) -> bool:
        """Takes a reply back that waits. False if it has begun: then it leaves soon, if it is cancelled."""
        with self._lock:
            if reply not in self._waiting:
                return False
            self._waiting.remove(reply)
        return True

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._waiting)

    def close(self) -> None:
        """Takes no more. Those that wait fail; those that are made go on."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for reply in waiting:
            reply.fail(Unavailable("the worker is shutting down"))
        self._thread.shutdown(wait=False)

    def _work(self) -> None:
        while self._admit():
            try:
                self._work_on()
            except Exception as error:
                # Not of one of them, as far as we know: it is all of theirs.
                _log.exception("replies failed")
                for reply in (*self._reading, *self._writing):
                    if not reply.ended:
                        reply.fail(error)
                self._reading.clear()
                self._writing.clear()

    def _admit(self) -> bool:
        """Lets in who waits, as far as there is room. False if there is nothing to do, and the work ends."""
        for reply in (*self._reading, *self._writing):
            if reply.cancelled.is_set():
                reply.leave()
        self._reading = deque(reply for reply in self._reading if not reply.cancelled.is_set())
        self._writing = [reply for reply in self._writing if not reply.cancelled.is_set()]
        with self._lock:
            inside = [*self._reading, *self._writing]
            tokens = sum(reply.reserved for reply in inside)
            count = len(inside)
            while self._waiting and count < self._most:
                tokens += self._waiting[0].reserved
                if count and tokens > self._most_tokens:
                    break
                self._reading.append(self._waiting.popleft())
                count += 1
            self._at_work = count > 0
            return self._at_work

    def _work_on(self) -> None:
        began = time.monotonic()
        if self._reading:
            # In turns, a piece of each: a short prompt does not wait for the end of a long one.
            reply = self._reading.popleft()
            if self._read(reply):
                self._writing.append(reply)
            elif not reply.ended:
                self._reading.append(reply)
        read_s = time.monotonic() - began
        began = time.monotonic()
        while self._writing:
            done = self._writer.write_on(self._writing)
            self._writing = [reply for reply in self._writing if reply not in done]
            if not self._reading or (time.monotonic() - began) * _READING >= read_s:
                return
            if any(reply.cancelled.is_set() for reply in self._writing):
                return

    def _read(self, reply: Reply) -> bool:
        """Whether it is to be written now."""
        try:
            return self._writer.read_on(reply) and not reply.ended
        except Exception as error:
            reply.fail(error)
            return False
