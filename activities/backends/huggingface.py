"""`ChatModel` by Hugging Face transformers, in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError, Executor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from activities.backends.model_sources import Progress, prepare, silent, unavailable
from activities.ports import ChatRequest
from goatherd.contracts.inference import Chunk, Finish, ModelSpec
from goatherd.errors import Unavailable

if TYPE_CHECKING:
    from activities.backends._causal_lm import CausalLM

_log = logging.getLogger(__name__)

# How long a closed stream waits for its thread. It looks for that at every token and prefill step.
_STOP_S = 5.0


class HuggingFaceChatModel:
    """A model whose replies are computed in the threads of an executor, as many at once as it has threads.

    `max_tokens` and `usage` are about the whole reply, the request's prefix included, and a seed decides each
    token by its position: a reply that is resumed from its text goes on as it would have. To the letter as
    long as its text tokenizes as it was made, which is nearly always, and is short (`_REPLAYED`).

    The prompt is the conversation by the model's own chat template; system turns replace the template's
    default one. Special tokens written out in a turn's text are not defused.
    """

    def __init__(self, model: CausalLM, executor: Executor) -> None:
        self._model = model
        self._executor = executor

    @classmethod
    def load(
        cls,
        name: str,
        spec: ModelSpec,
        *,
        cache: Path,
        executor: Executor,
        threads: int | None = None,
        progress: Progress = silent,
    ) -> HuggingFaceChatModel:
        """Prepares the model's files if need be, and loads it. Blocks: seconds, or minutes the first time.

        `threads` are those of one computation in torch, for the whole process; None: one for each core.

        Raises:
            Unavailable: it can't be had or loaded now; the message says what to do (`model-unavailable`).
        """
        try:
            folder = prepare(name, spec, cache, progress)
            progress(f"loading {name}: torch and transformers …")
            from activities.backends._causal_lm import CausalLM
        except ImportError as error:
            raise unavailable(
                name, f"{error.name} is not installed", "install goatherd[inference]"
            ) from error
        progress(f"loading {name}: weights …")
        try:
            return cls(CausalLM.load(folder, spec, threads=threads), executor)
        except Unavailable:
            raise
        except Exception as error:
            # Whatever a model's files make transformers and torch raise: there is no common base.
            raise unavailable(
                name, f"{spec.source!r} can't be loaded ({error})", "check its files"
            ) from error

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk | Finish]:
        """See `ChatModel.stream`. A reply waits while all threads of the executor are taken."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Chunk | Finish | None] = asyncio.Queue()
        cancelled = threading.Event()

        def post(item: Chunk | Finish | None) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody listens any more
                cancelled.set()

        def work() -> None:
            for item in self._model.reply(request, cancelled):
                post(item)

        # Not put in order behind a bounded queue: a reply is at most some thousand chunks.
        future = self._executor.submit(work)
        future.add_done_callback(lambda _: post(None))
        ended = False
        try:
            while (item := await items.get()) is not None:
                yield item
            ended = True
            future.result()
        except CancelledError as error:
            raise Unavailable("the worker is shutting down") from error
        finally:
            cancelled.set()
            if not ended and not future.cancel():
                # The thread's slot is taken until it stops: only then is the stream closed.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_S):
                        while await items.get() is not None:
                            pass
                if not future.done():
                    _log.warning("a cancelled reply still computes after %s s", _STOP_S)
