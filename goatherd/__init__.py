"""Goatherd: durable chats, tasks and inference graphs as actors on Temporal."""

__version__ = "0.1.0"
