"""Durable actors: each a Temporal workflow, with a whole tree of actors inside."""

from __future__ import annotations

from goatherd.actors.durable._client import ActorSystem, Busy, Entity
from goatherd.actors.durable._definition import DurableActor, actor

__all__ = ["ActorSystem", "Busy", "DurableActor", "Entity", "actor"]
