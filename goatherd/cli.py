"""The `goatherd` command. What a command needs is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from goatherd import heap
from goatherd.cli_index import index
from goatherd.cli_task import task
from goatherd.contracts.queues import Pool
from goatherd.leaving import leave

if TYPE_CHECKING:
    from goatherd.settings import Settings

_USAGE = 2

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Durable chats, tasks and inference graphs as actors on Temporal. Every setting is also an "
    "environment variable GOATHERD_…; an option wins over it.",
)
models = typer.Typer(no_args_is_help=True, help="The models that Goatherd can talk with.")
app.add_typer(models, name="models")
app.add_typer(task, name="task")
app.add_typer(index, name="index")

Host = Annotated[
    str | None, typer.Option(envvar="GOATHERD_HOST", help="Where the API listens. Default: 127.0.0.1.")
]
Port = Annotated[
    int | None,
    typer.Option(envvar="GOATHERD_PORT", help="Default: 8080. 0 takes any that is free.", min=0, max=65_535),
]
Data = Annotated[
    Path | None, typer.Option(envvar="GOATHERD_DATA", help="The folder of all data. Default: .goatherd.")
]
Temporal = Annotated[
    str | None,
    typer.Option(envvar="GOATHERD_TEMPORAL", metavar="HOST:PORT", help="A Temporal server of your own."),
]
Namespace = Annotated[
    str | None,
    typer.Option(envvar="GOATHERD_TEMPORAL_NAMESPACE", help="Temporal namespace. Default: default."),
]
MongoUri = Annotated[
    str | None,
    typer.Option(envvar="GOATHERD_MONGO_URI", metavar="URI", help="A MongoDB replica set of your own."),
]
Model = Annotated[
    str | None, typer.Option(envvar="GOATHERD_MODEL", help="The model of sessions that name none.")
]
Actors = Annotated[
    str | None,
    typer.Option(
        envvar="GOATHERD_ACTORS",
        metavar="MODULE,…",
        help="Modules with actor types of your own, which the pool `actors` serves. All its workers need "
        "the same: those of `goatherd up` too.",
    ),
]
LogLevel = Annotated[
    str | None, typer.Option(envvar="GOATHERD_LOG_LEVEL", help="debug, info, warning or error.")
]


@app.command()
def up(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    temporal: Temporal = None,
    namespace: Namespace = None,
    mongo_uri: MongoUri = None,
    model: Model = None,
    actors: Actors = None,
    log_level: LogLevel = None,
) -> None:
    """Starts everything: Temporal, the store, the workers and the API. Ctrl-C stops it."""
    settings = _settings(
        host=host,
        port=port,
        data=data,
        temporal=temporal,
        temporal_namespace=namespace,
        mongo_uri=mongo_uri,
        model=model,
        actors=actors,
        log_level=log_level,
    )
    from rich.console import Console

    from goatherd.embedded.banner import Screen
    from goatherd.embedded.up import up as run
    from goatherd.telemetry import configure_logging

    configure_logging(settings, "up")
    _warn_if_open(settings)
    with _told():
        code = asyncio.run(run(settings, Screen(Console())))
    raise typer.Exit(code)


@app.command()
def api(
    host: Host = None,
    port: Port = None,
    data: Data = None,
    temporal: Temporal = None,
    namespace: Namespace = None,
    mongo_uri: MongoUri = None,
    log_level: LogLevel = None,
) -> None:
    """Starts one API process, on the servers named or on those of the `goatherd up` that runs here."""
    settings = _settings(
        join=True,
        host=host,
        port=port,
        data=data,
        temporal=temporal,
        temporal_namespace=namespace,
        mongo_uri=mongo_uri,
        log_level=log_level,
    )
    import uvloop

    from goatherd.serve import serve_api
    from goatherd.telemetry import configure_logging

    configure_logging(settings, "api")
    _warn_if_open(settings)
    with _told():
        uvloop.run(serve_api(settings))


@app.command()
def worker(
    context: typer.Context,
    pool: Annotated[
        list[Pool], typer.Option(envvar="GOATHERD_POOLS", help="What it serves; give it once for each pool.")
    ],
    data: Data = None,
    temporal: Temporal = None,
    namespace: Namespace = None,
    mongo_uri: MongoUri = None,
    model: Model = None,
    actors: Actors = None,
    log_level: LogLevel = None,
) -> None:
    """Starts one worker process, on the servers named or on those of the `goatherd up` that runs here."""
    heap.few_arenas()
    # Where it comes from the environment, other workers are meant, too.
    source = context.get_parameter_source("actors")
    if Pool.ACTORS not in pool and source is not None and source.name == "COMMANDLINE":
        _fail("--actors is for workers of the pool `actors`: add --pool actors.", _USAGE)
    settings = _settings(
        join=True,
        data=data,
        temporal=temporal,
        temporal_namespace=namespace,
        mongo_uri=mongo_uri,
        model=model,
        actors=actors,
        log_level=log_level,
    )
    import uvloop

    from goatherd.telemetry import configure_logging
    from workers.run import run_worker

    configure_logging(settings, f"worker-{'+'.join(pool)}")
    with _told():
        uvloop.run(run_worker(settings, list(dict.fromkeys(pool))))


@app.command()
def routes(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Shows the API's routes: methods, path, summary."""
    from goatherd.serve import route_table

    table = route_table(_settings())
    if as_json:
        import json

        typer.echo(json.dumps(table))
        return
    from rich.console import Console

    from goatherd.embedded.banner import Screen

    Screen(Console()).routes(table)


@app.command()
def chat(
    session: Annotated[
        str | None, typer.Argument(help="An existing session; else a new one is made.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="GOATHERD_URL", help="The API. Default: of the `goatherd up` that runs here."),
    ] = None,
    # Not GOATHERD_MODEL: that is the API's default, of which this terminal need not know.
    model: Annotated[str | None, typer.Option(help="The model of a new session.")] = None,
    data: Data = None,
) -> None:
    """Talks with a model in the terminal."""
    settings = _settings(data=data)
    from goatherd.embedded.join import find_api
    from goatherd.terminal import chat as talk

    if not url:
        url, guess = find_api(settings)
        if guess:
            typer.echo(f"{guess}; trying {url}. Another is named with --data or --url.", err=True)
    raise typer.Exit(talk(url, session, model=model))


@models.command("prepare")
def prepare_models() -> None:
    """Fetches and converts all configured models, so that workers start quickly. Exits with 1 if one can't be
    had; the others are."""
    settings = _settings()
    from activities.backends.models import prepare_all

    if failed := prepare_all(settings, typer.echo):
        _fail("\n".join(error.message for error in failed))


@models.command("list")
def list_models() -> None:
    """Shows the configured models (GOATHERD_MODELS, GOATHERD_MODELS_FILE): name, task, provider, origin and
    source; `*` marks the default one. Those that were registered by request are at GET /models."""
    settings = _settings()
    rows = [
        (name, spec.task.value, spec.provider, settings.origin(name), spec.source)
        for name, spec in settings.models.items()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        mark = "*" if row[0] == settings.model else " "
        cells = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        typer.echo(f"{mark} {cells}".rstrip())


@app.command()
def version() -> None:
    """Shows the version."""
    from importlib.metadata import version as installed

    typer.echo(f"goatherd {installed('goatherd')}")


def _version_asked(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Shows the version.", callback=_version_asked, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that can't show ✓ shows ?
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    else:
        code = 0
    leave(code)


def _settings(*, join: bool = False, **options: Any) -> Settings:
    """Settings from the environment, under the options given; `join`: with servers, found if not named.

    Ends the program with exit code 2 if they are not valid.
    """
    from goatherd.errors import Invalid
    from goatherd.options import load_settings

    try:
        settings = load_settings(**options)
        if join:
            from goatherd.embedded.join import join as join_running

            settings = join_running(settings)
    except Invalid as error:
        _fail(error.message, _USAGE)
    return settings


def _warn_if_open(settings: Settings) -> None:
    try:
        loopback = settings.host == "localhost" or ip_address(settings.host).is_loopback
    except ValueError:  # a host name
        loopback = False
    if not loopback:
        typer.secho(
            f"Warning: the API listens on {settings.host}, beyond this machine, and there is no "
            "authentication yet: whoever reaches it reads and writes everything.",
            fg="yellow",
            err=True,
        )


@contextmanager
def _told() -> Iterator[None]:
    """Ends the program with 1 and a sentence for an error that we raise on purpose."""
    from goatherd.errors import GoatherdError

    try:
        yield
    except GoatherdError as error:
        _fail(error.message)


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(code)
