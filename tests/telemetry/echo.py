"""A workflow and an activity that say what they do, in a module that the sandbox can import."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from goatherd.telemetry import current_request_id, get_logger

log = get_logger("tests.echo")


@activity.defn
async def say(word: str) -> str:
    log.info("structlog line", word=word)
    activity.logger.info("sdk line")
    if word == "bad":
        raise ApplicationError("bad word", non_retryable=True)
    return word


@workflow.defn
class Echo:
    """Says each word that it is told: in the handler if told to `say_now`, in its main loop else."""

    def __init__(self) -> None:
        self._words: list[str] = []
        self._said: list[str] = []

    @workflow.run
    async def run(self, continued: bool) -> list[str]:
        workflow.logger.info("run started")
        await workflow.wait_condition(lambda: bool(self._words))
        word = self._words.pop()
        if word == "again" and not continued:
            workflow.continue_as_new(True)
        try:
            raise ValueError("only to be logged")
        except ValueError:
            workflow.logger.exception("failed on purpose")
        self._said.append(
            await workflow.execute_activity(say, word, start_to_close_timeout=timedelta(seconds=10))
        )
        return self._said

    @workflow.update
    async def say_now(self, word: str) -> str | None:
        workflow.logger.info("update heard")
        await workflow.execute_local_activity(say, word, start_to_close_timeout=timedelta(seconds=10))
        await asyncio.sleep(0)
        return current_request_id()

    @workflow.signal
    def say_later(self, word: str) -> None:
        self._words.append(word)

    @workflow.query
    def request(self) -> str | None:
        return current_request_id()
