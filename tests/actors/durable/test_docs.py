"""docs/actors.md is right: its first block is a module that runs, in this process and on Temporal."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

_PAGE = Path(__file__).parents[3] / "docs" / "actors.md"
_ADDRESS = "127.0.0.1:7233"


async def test_the_first_block_of_the_page_runs(
    temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r"^```python\n(.*?)^```", _PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    block = found[1]
    address = temporal.client.service_client.config.target_host
    assert _ADDRESS in block
    page = ModuleType("accounts")
    # Dataclasses look their module up by its name.
    monkeypatch.setitem(sys.modules, page.__name__, page)
    exec(compile(block.replace(_ADDRESS, address), str(_PAGE), "exec"), vars(page))
    assert await page.in_this_process() == 3
    worker = Worker(
        temporal.client,
        task_queue="goatherd-actors",  # that of `goatherd up`
        workflows=[page.Account],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        assert await page.on_temporal() == 3
