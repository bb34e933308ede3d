"""Recorded histories replay: whatever workflow is open while Goatherd is updated goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from workers.sandbox import workflow_runner
from workflows.chat import ChatSession
from workflows.inference_job import InferenceJob
from workflows.ingestion import Ingestion
from workflows.task import Task

FOLDER = Path(__file__).parent / "histories"
HISTORIES = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.json"))}


def test_there_are_histories() -> None:
    assert {name.rpartition("-")[0] for name in HISTORIES} == {
        *("everything", "many_runs", "forked"),
        *("task_everything", "task_runs"),
        *("job_retried", "job_again", "job_cancelled"),
        *("ingestion_everything", "ingestion_runs"),
        *("ingestion_paused", "ingestion_cancelled", "ingestion_dropped"),
    }


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("sandboxed", [True, False], ids=["sandboxed", "bare"])
async def test_a_recorded_history_replays(name: str, sandboxed: bool) -> None:
    text = HISTORIES[name]
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    kind = next((kind for kind in ("task", "job", "ingest") if name.startswith(kind)), "chat")
    workflow_id = started.get("workflowId") or f"{kind}_{'0' * 26}"
    history = WorkflowHistory.from_json(workflow_id, text)
    replayer = Replayer(
        workflows=[ChatSession, Task, InferenceJob, Ingestion],
        data_converter=pydantic_data_converter,
        workflow_runner=workflow_runner(sandboxed=sandboxed),
    )
    await replayer.replay_workflow(history)
