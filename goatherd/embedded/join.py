"""How commands beside `goatherd up` find it: more API processes, more workers, the terminal chat."""

from __future__ import annotations

from goatherd.embedded._lock import Running, find_running
from goatherd.errors import Invalid
from goatherd.settings import Settings


def join(settings: Settings) -> Settings:
    """The settings with servers: those they name, or those of the `goatherd up` on their data folder.

    Raises:
        Invalid: neither names one.
    """
    running = find_running(settings.data) or Running()
    temporal = settings.temporal or running.temporal
    mongo_uri = settings.mongo_uri or running.mongo_uri
    lacking = [] if temporal else ["--temporal (GOATHERD_TEMPORAL)"]
    if not mongo_uri:
        lacking.append("--mongo-uri (GOATHERD_MONGO_URI)")
    if lacking:
        raise Invalid(
            f"Give {' and '.join(lacking)}, or let `goatherd up` run on the same data folder. On "
            f"{str(settings.data)!r} none does, or it was given servers that have to be named here too."
        )
    return settings.model_copy(update={"temporal": temporal, "mongo_uri": mongo_uri})


def api_url(settings: Settings) -> str:
    """Of the `goatherd up` on the settings' data folder if one runs, else where the settings say."""
    return find_api(settings)[0]


def find_api(settings: Settings) -> tuple[str, str]:
    """`api_url`, and, if that is but a guess, a clause that says why."""
    running = find_running(settings.data)
    if running is None:
        return url_of(settings), f"No `goatherd up` runs on {str(settings.data.absolute())!r}"
    if not running.url:
        starting = f"The `goatherd up` on {str(settings.data.absolute())!r} is still starting"
        return url_of(settings), starting
    return running.url, ""


def url_of(settings: Settings) -> str:
    """Where a client on this machine reaches an API with these settings."""
    host = client_host(settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def client_host(host: str) -> str:
    """Whom to ask for what listens on `host`: a wildcard is no address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
