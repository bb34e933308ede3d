"""Settings from options and the environment; what is wrong with them is told in sentences."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from goatherd.errors import Invalid
from goatherd.settings import DEFAULT_MODEL, Settings, default_models

_OPTIONS = {"temporal_namespace": "--namespace"}


def load_settings(**options: Any) -> Settings:
    """Settings from the environment, under those `options` that are not None.

    Raises:
        Invalid: a line for each mistake, naming the variable or option that its user wrote.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)
    except SettingsError as error:  # a variable that should be JSON and is not
        name = str(error).partition('field "')[2].partition('"')[0]
        raise Invalid(f"{_variable(name)} has to be JSON: {error.__cause__}.") from error
    except ValidationError as error:
        sentences = (_sentence(problem["loc"], problem["msg"], given) for problem in error.errors())
        raise Invalid("\n".join(sentences)) from error
    if settings.model == DEFAULT_MODEL:
        # Those that are given are beside it, not in its place.
        settings = settings.model_copy(update={"models": default_models() | settings.models})
    elif settings.model not in settings.models:
        known = ", ".join(map(repr, settings.models)) or "none"
        raise Invalid(
            f"{_name('model', given)} is {settings.model!r}, but GOATHERD_MODELS has {known}. Set it to one "
            f"of these, leave it out for {DEFAULT_MODEL!r}, or add the model to GOATHERD_MODELS or to the "
            "file of GOATHERD_MODELS_FILE."
        )
    return settings


def _sentence(place: tuple[int | str, ...], message: str, given: dict[str, Any]) -> str:
    field, *inside = map(str, place)
    at = f", at {'.'.join(inside)}" if inside else ""
    return f"{_name(field, given)} is not valid{at}: {message[:1].lower()}{message[1:]}."


def _name(field: str, given: dict[str, Any]) -> str:
    if field not in given:
        return _variable(field)
    return f"{_OPTIONS.get(field, '--' + field.replace('_', '-'))} ({_variable(field)})"


def _variable(field: str) -> str:
    return f"GOATHERD_{field.upper()}"
