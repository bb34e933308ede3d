"""`goatherd chat`: a conversation in the terminal, over the HTTP API like any other client's."""

from goatherd.terminal._chat import Chat
from goatherd.terminal._run import chat

__all__ = ["Chat", "chat"]
