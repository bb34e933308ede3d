"""Waiting for `/readyz`, and telling what it waits for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from goatherd.embedded._http import get

_POLL_S = 0.2
_REPEAT_S = 3.0

Report = Callable[[str, bool, str], None]
"""Takes the name of a part, whether it is ready, and what there is to say of it."""


class Readiness:
    """Follows `/readyz` of one API process until it says 200."""

    def __init__(self, host: str, port: int, report: Report) -> None:
        self._host = host
        self._port = port
        self._report = report
        self._ready: set[str] = set()
        self._said: dict[str, tuple[float, str]] = {}

    async def wait(self) -> None:
        """Returns when everything is ready. Reports each part when it is, and now and then what lasts."""
        while True:
            try:
                status, body = await get(self._host, self._port, "/readyz")
            except OSError:  # not up yet, or down again
                await asyncio.sleep(_POLL_S)
                continue
            self._tell(_checks(body))
            if status == 200:
                return
            await asyncio.sleep(_POLL_S)

    def _tell(self, checks: dict[str, Any]) -> None:
        now = time.monotonic()
        for name, check in checks.items():
            ok, detail = bool(check.get("ok")), str(check.get("detail") or "")
            if ok and name not in self._ready:
                self._ready.add(name)
                self._report(name, True, detail)
            elif not ok:
                self._ready.discard(name)
                at, said = self._said.get(name, (-_REPEAT_S, ""))
                if detail and detail != said and now - at >= _REPEAT_S:
                    self._said[name] = (now, detail)
                    self._report(name, False, detail)


def _checks(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:  # another program's answer, or an error page
        return {}
    checks = found.get("checks") if isinstance(found, dict) else None
    return {k: v for k, v in checks.items() if isinstance(v, dict)} if isinstance(checks, dict) else {}
