"""Durable actors: each a Temporal workflow, with a whole tree of actors inside."""

from __future__ import annotations

from goatherd.actors.durable._client import ActorSystem, Entity
from goatherd.actors.durable._definition import DurableActor, actor
from goatherd.actors.durable._lane import Busy

__all__ = ["ActorSystem", "Busy", "DurableActor", "Entity", "actor"]
