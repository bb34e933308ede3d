"""Durable actors: each a Temporal workflow, with a whole tree of actors inside, or one of many in a shard."""

from __future__ import annotations

from goatherd.actors.durable._client import ActorSystem, Entity, Resident
from goatherd.actors.durable._definition import DurableActor, actor
from goatherd.actors.durable._journal_activities import JournalActivities
from goatherd.actors.durable._lane import Busy
from goatherd.actors.durable._sharded import ShardedEntity, sharded
from goatherd.actors.durable._state_activities import StateActivities
from goatherd.actors.durable._state_store import MemoryStateStore, StateStore, Stored

__all__ = [
    "ActorSystem",
    "Busy",
    "DurableActor",
    "Entity",
    "JournalActivities",
    "MemoryStateStore",
    "Resident",
    "ShardedEntity",
    "StateActivities",
    "StateStore",
    "Stored",
    "actor",
    "sharded",
]
