"""Histories of a workflow's runs; and as they are recorded for replay, without what tells of the machine."""

from __future__ import annotations

import json
from pathlib import Path

from temporalio.client import Client, WorkflowHistory


async def record(client: Client, workflow_id: str, folder: Path, name: str) -> None:
    """Writes each run's history, the first as `name-0.json`."""
    for number, history in enumerate((await runs(client, workflow_id)).values()):
        text = json.dumps(_scrubbed(history.to_json_dict()))
        (folder / f"{name}-{number}.json").write_text(f"{text}\n")
        print(f"{name}-{number}", len(history.events), "events")


async def runs(client: Client, workflow_id: str) -> dict[str, WorkflowHistory]:
    """The histories of a workflow's runs by their ids, the oldest first."""
    found: dict[str, WorkflowHistory] = {}
    run: str | None = (await client.get_workflow_handle(workflow_id).describe()).run_id
    while run:
        found[run] = await client.get_workflow_handle(workflow_id, run_id=run).fetch_history()
        started = found[run].events[0].workflow_execution_started_event_attributes
        run = started.continued_execution_run_id
    return dict(reversed(found.items()))


def _scrubbed(value: object) -> object:
    if isinstance(value, dict):
        return {key: _scrubbed(one) for key, one in value.items() if key not in ("stackTrace", "identity")}
    return [_scrubbed(one) for one in value] if isinstance(value, list) else value
