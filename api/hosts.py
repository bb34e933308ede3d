"""For which hosts and origins we answer: a browser must not be made a way in by somebody else's page.

A page can make a name of its own point at 127.0.0.1 (DNS rebinding), and any page may post across sites
and open WebSockets. Programs send no Origin and are not concerned.
"""

from __future__ import annotations

from goatherd.security.addresses import is_loopback
from goatherd.settings import Settings

_REMEMBERED = 1_000
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SECURE = {"ws": "http", "wss": "https"}


class Hosts:
    """The verdicts, remembered: the same few names come with every request."""

    def __init__(self, settings: Settings) -> None:
        self._names = frozenset(name.lower() for name in settings.allowed_hosts)
        # Who listens to the world without a list of names is behind something that checks them.
        self._any = "*" in self._names or (not self._names and not is_loopback(settings.host))
        self._origins = frozenset(_normal_origin(origin) for origin in settings.allowed_origins)
        self._known: dict[bytes, bool] = {}

    def allows_host(self, header: bytes) -> bool:
        """Whether the Host header names us. Loopback names always do: no foreign page can have them."""
        verdict = self._known.get(header)
        if verdict is None:
            name = host_name(header.decode("latin-1"))
            verdict = self._any or name in self._names or is_loopback(name)
            if len(self._known) < _REMEMBERED:
                self._known[header] = verdict
        return verdict

    def allows_origin(self, origin: str, scheme: str, host: str) -> bool:
        """Whether a page of `origin` may change things here, or listen: it is ours, or in the settings."""
        normal = _normal_origin(origin)
        own = _normal_origin(f"{_SECURE.get(scheme, scheme)}://{host}")
        return normal == own or normal in self._origins


def host_name(host: str) -> str:
    """The name in `name`, `name:port`, `[::1]` or `[::1]:port`, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.partition(":")[0].rstrip(".")


def _normal_origin(origin: str) -> str:
    scheme, separator, rest = origin.strip().lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if port is not None:
        rest = rest.removesuffix(f":{port}")
    return f"{scheme}{separator}{rest.rstrip('/')}"
