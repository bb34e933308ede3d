"""A real Temporal server for tests, and the ways that tests look at it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment

from tests.servers import program

PATIENCE_S = 60.0
"""For an answer, on a machine that is busy with something else."""
SEARCH_ATTRIBUTES = ["GoatherdOwner=Keyword", "GoatherdStatus=Keyword"]


@asynccontextmanager
async def temporal_server(database: Path | None = None) -> AsyncIterator[WorkflowEnvironment]:
    """The dev server on a free port, ended by its own process id."""
    extra = [part for attribute in SEARCH_ATTRIBUTES for part in ("--search-attribute", attribute)]
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=program("temporal"),
        dev_server_database_filename=str(database) if database else None,
        dev_server_extra_args=extra,
        dev_server_log_level="error",
        data_converter=pydantic_data_converter,
    )
    try:
        yield environment
    finally:
        await environment.shutdown()


async def cli(client: Client, *arguments: str) -> str:
    """What an operator would type: the `temporal` command against this server. Gives its output."""
    process = await asyncio.create_subprocess_exec(
        program("temporal"),
        *arguments,
        "--address",
        client.service_client.config.target_host,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def eventually(check: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Polls a state that nobody can be asked to announce."""
    async with asyncio.timeout(within_s):
        while not await check():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)
