"""Settings as a child process gets them: through the environment, so that no secret is in a command line."""

from __future__ import annotations

import json
import os

from goatherd.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Our environment with `GOATHERD_*` variables that make a child's `Settings()` equal to these."""
    prefix = settings.model_config.get("env_prefix", "")
    names = {field: f"{prefix}{field}".upper() for field in type(settings).model_fields}
    stale = set(names.values())
    env = {name: value for name, value in os.environ.items() if name.upper() not in stale}
    for field, value in settings.model_dump(mode="json").items():
        if value is not None:
            env[names[field]] = value if isinstance(value, str) else json.dumps(value)
    return env
