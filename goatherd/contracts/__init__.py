"""Pydantic models of all that crosses a process: HTTP, Temporal payloads, documents in the store."""
