"""What a durable actor that was ended from outside would have had to say: whom, and to whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from goatherd.actors.durable import _protocol as protocol
from goatherd.contracts.model import Contract

_TIMEOUT = timedelta(seconds=5)


class LastWords(Contract):
    """`watchers` wait to hear that it is gone, `children` stop with it."""

    watchers: list[protocol.Watching]
    children: list[str]


async def last_words(client: Client, handle: WorkflowHandle[Any, Any]) -> LastWords:
    """Of a closed workflow, by a query; of one whose workers never came as far as its first task, by what it
    was sent.

    Raises:
        RPCError, WorkflowQueryFailedError: they can't be had now.
    """
    try:
        view: protocol.View = await handle.query(
            protocol.VIEW, result_type=protocol.View, rpc_timeout=_TIMEOUT
        )
    except RPCError as error:
        if error.status != RPCStatusCode.FAILED_PRECONDITION:
            raise
        events = [event async for event in handle.fetch_history_events(rpc_timeout=_TIMEOUT)]
        if any(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED for event in events):
            raise
        return await _unheard(client, events)
    return LastWords(watchers=view.watchers, children=view.children)


async def _unheard(client: Client, events: list[HistoryEvent]) -> LastWords:
    """What its run began with, and who has watched it since."""
    watchers: list[protocol.Watching] = []
    children: list[str] = []
    inputs = await client.data_converter.decode(
        events[0].workflow_execution_started_event_attributes.input.payloads
    )
    if len(inputs) > 1 and inputs[1] is not None:  # It went on from another run.
        carried = protocol.Carried.model_validate(inputs[1])
        children = carried.children
        watchers = [
            protocol.Watching(watched=cell["address"], watcher=watcher)
            for cell in carried.tree["cells"]
            for watcher in cell.get("watchers", ())
        ]
    async for signal in _signals(client, events):
        if signal.name not in (protocol.WATCH, protocol.UNWATCH):
            continue
        try:
            watching = protocol.Watching.model_validate(signal.inputs[0])
        except (ValidationError, LookupError):
            continue  # The actor would have dropped it, too.
        if watching in watchers:
            watchers.remove(watching)
        if signal.name == protocol.WATCH:
            watchers.append(watching)
    return LastWords(watchers=watchers, children=children)


async def _signals(client: Client, events: list[HistoryEvent]) -> AsyncIterator[protocol.Signal]:
    for event in events:
        if event.event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            continue
        signal = event.workflow_execution_signaled_event_attributes
        if signal.signal_name not in (protocol.WATCH, protocol.UNWATCH, protocol.SEVERAL):
            continue
        inputs = await client.data_converter.decode(signal.input.payloads)
        if signal.signal_name != protocol.SEVERAL:
            yield protocol.Signal(name=signal.signal_name, inputs=inputs)
            continue
        try:
            several = protocol.Signals.model_validate(inputs[0])
        except (ValidationError, LookupError):
            continue
        for one in several.signals:
            yield one
