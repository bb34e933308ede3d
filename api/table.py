"""The routes of an app, as a table that people can read."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import WebSocketRoute


def route_table(app: FastAPI) -> list[tuple[str, str, str]]:
    """Method, path and summary of each route, WebSockets as `WS`; sorted by path."""
    rows: list[tuple[str, str, str]] = []
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            rows += [
                (method, route.path, route.summary or route.name) for method in sorted(route.methods or ())
            ]
        elif isinstance(route, WebSocketRoute):
            about = (route.endpoint.__doc__ or route.name).strip().partition("\n")[0].rstrip(".")
            rows.append(("WS", route.path, about))
    return sorted(rows, key=lambda row: (row[1], row[0]))
