"""`ChatModel` by Hugging Face transformers, in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING

from activities.backends._batch import ReplyBatch
from activities.ports import ChatRequest
from goatherd.contracts.inference import Chunk, Finish, Limits
from goatherd.errors import Unavailable

if TYPE_CHECKING:
    from activities.backends._causal_lm import CausalLM
    from activities.backends._reply import Reply, Shown

_log = logging.getLogger(__name__)

# How long a closed stream waits for its reply to be let go. That is looked for at every step of the batch.
_STOP_S = 5.0


class HuggingFaceChatModel:
    """A model whose replies are made together, as many at once as its limits say.

    `max_tokens` and `usage` are about the whole reply, the request's prefix included, and a seed decides each
    token by its position: a reply that is resumed from its text goes on as it would have. To the letter as
    long as its text tokenizes as it was made, which is nearly always, and is short (`_REPLAYED`).

    The prompt is the conversation by the model's own chat template; system turns replace the template's
    default one. Special tokens written out in a turn's text are not defused.

    What else is made at the same time does not change a reply: on a CPU in bfloat16 to the bit, in float32 up
    to near ties, which are rare. On a GPU products of matrices are rounded by their size: there near ties are
    rare in float32 only.
    """

    def __init__(self, model: CausalLM, executor: Executor, limits: Limits | None = None) -> None:
        """`executor`: threads in which requests are made tokens of."""
        limits = limits or Limits()
        self._model = model
        self._executor = executor
        self._batch = ReplyBatch(model, most=limits.batch, most_tokens=limits.batch_tokens)

    @property
    def memory_bytes(self) -> int:
        """Of its weights."""
        return self._model.memory_bytes

    @property
    def talks(self) -> bool:
        """Whether it has a template for conversations; else it only goes on from a text."""
        return self._model.talks

    def close(self) -> None:
        """Takes no more replies. Those that wait end with `Unavailable`; the others go on."""
        self._batch.close()

    async def stream(self, request: ChatRequest) -> AsyncIterator[Chunk | Finish]:
        """See `ChatModel.stream`. A reply waits while there are as many as may be made at once."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[Shown] = asyncio.Queue()
        reply: Reply

        def show(item: Shown) -> None:
            try:
                loop.call_soon_threadsafe(items.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody listens any more
                reply.cancelled.set()

        try:
            begin = loop.run_in_executor(self._executor, self._model.begin, request, show)
        except RuntimeError as error:  # it takes no more work
            raise Unavailable("the worker is shutting down") from error
        try:
            reply = await begin
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not we are cancelled, but what waited for a thread.
            raise Unavailable("the worker is shutting down") from None
        self._batch.add(reply)
        ended = False
        try:
            # Not put in order behind a bounded queue: a reply is at most some thousand chunks.
            while (item := await items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
            ended = True
        finally:
            reply.cancelled.set()
            if not ended and not self._batch.withdraw(reply):
                # Only when the batch has let it go is what it held free.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_S):
                        while not reply.ended:
                            await items.get()
                if not reply.ended:
                    _log.warning("a cancelled reply is still made after %s s", _STOP_S)
