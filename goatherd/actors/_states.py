"""Where an actor is in its life, and what the system has it do next."""

from __future__ import annotations

import sys
from enum import Enum, IntEnum

UNBOUNDED = sys.maxsize
SHUT = -1
"""The mailbox limit of who takes no more messages."""


class State(IntEnum):
    STARTING = 0
    RUNNING = 1
    RESTARTING = 2
    WAITING = 3
    STOPPING = 4
    DEAD = 5
    AWAY = 6
    """Not in memory, but not stopped: what is sent to it goes by its address."""


RUNNING = State.RUNNING
AWAY = State.AWAY
"""Looked up once: an enum's attribute takes as long as sending a message."""


class Op(Enum):
    """What the system has a cell do before its next message."""

    START = "start"
    STOP = "stop"
    CHECK = "check"
