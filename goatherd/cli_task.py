"""`goatherd task …`: tasks from the command line. What a command needs is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

task = typer.Typer(no_args_is_help=True, help="Tasks: make them of files, work on them, see how they go on.")

Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]
Url = Annotated[
    str | None,
    typer.Option(envvar="GOATHERD_URL", help="The API. Default: of the `goatherd up` that runs here."),
]
Data = Annotated[
    Path | None, typer.Option(envvar="GOATHERD_DATA", help="The folder of all data. Default: .goatherd.")
]

_USAGE = 2


def reach(url: str | None, data: Path | None) -> str:
    """The address given, or that of the `goatherd up` on the data folder."""
    if url:
        return url
    from goatherd.embedded.join import find_api
    from goatherd.errors import Invalid
    from goatherd.options import load_settings

    try:
        found, guess = find_api(load_settings(data=data))
    except Invalid as error:
        typer.secho(error.message, fg="red", err=True)
        raise typer.Exit(_USAGE) from None
    if guess:
        typer.echo(f"{guess}; trying {found}. Another is named with --data or --url.", err=True)
    return found


@task.command()
def create(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl", help="`-` is stdin.")],
    title: Annotated[str | None, typer.Option(help="Default: the file's name.")] = None,
    overlap: Annotated[int, typer.Option(min=1, max=100, help="Different workers for each subtask.")] = 1,
    consensus: Annotated[
        str, typer.Option(help="Which answers have to agree: none, majority or all.")
    ] = "none",
    lease: Annotated[float, typer.Option(min=1, help="How long a worker has, in seconds.")] = 60.0,
    max_attempts: Annotated[int, typer.Option(min=1, help="Then a subtask is dead.")] = 3,
    priority: Annotated[int, typer.Option(min=1, max=5, help="1 comes first.")] = 3,
    requires: Annotated[
        list[str] | None, typer.Option(help="A capability that all subtasks require; as often as you like.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Of the task; as often as you like.")] = None,
    callback: Annotated[str | None, typer.Option(metavar="URL", help="Where the end is told.")] = None,
    into: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="Adds to, or goes on with, this one.")
    ] = None,
    anew: Annotated[
        bool, typer.Option("--new", help="Another task, also if this file has become one already.")
    ] = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Makes a task of a file with a subtask a line.

    A line is a JSON object with `input` (and title, labels, priority, requires, key, depends_on), or any
    other JSON value, which is the input. All lines are checked before anything is sent: numbers have up to
    64 bits, and nesting is up to 64 deep. After a crash, the same command goes on where it stopped and adds
    nothing twice. The task's id goes to stdout.
    """
    from goatherd.terminal._task_create import Order
    from goatherd.terminal._task_run import create_task, title_of

    settings: dict[str, Any] = {
        "title": title or title_of(file),
        "overlap": overlap,
        "consensus": consensus,
        "lease_s": lease,
        "max_attempts": max_attempts,
        "priority": priority,
    }
    if label:
        settings["labels"] = label
    if callback:
        settings["callback"] = {"url": callback}
    order = Order(settings, requires or [], task=into, anew=anew)
    raise typer.Exit(create_task(reach(url, data), file, order))


@task.command()
def work(
    task: Task,
    worker: Annotated[
        str | None, typer.Option(envvar="GOATHERD_WORKER", help="Who you are. Default: user@machine.")
    ] = None,
    capabilities: Annotated[
        list[str] | None, typer.Option(help="What you can, as `requires` names it; as often as you like.")
    ] = None,
    lease: Annotated[
        float | None, typer.Option(min=1, help="How long you have, in seconds. Default: the task's.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            metavar="'PROGRAM …'",
            help="Runs it for each: input on stdin, result from stdout. It is no shell: for pipes, variables "
            "and the like, write sh -c '…'.",
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Of programs at a time.")] = 1,
    stay: Annotated[bool, typer.Option("--stay", help="Waits for more when all is done.")] = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Takes subtasks one at a time: you answer, or a program does.

    Whoever works on one keeps it as long as it takes. Ctrl-C gives back what is held.
    """
    from goatherd.terminal._task_run import default_worker, work_task
    from goatherd.terminal._task_work import Terms

    able = [name for given in capabilities or [] for name in given.split(",") if name]
    terms = Terms(task, worker or default_worker(), able, lease_s=lease, stay=stay)
    raise typer.Exit(work_task(reach(url, data), terms, command=command, concurrency=concurrency))


@task.command()
def watch(
    task: Task,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Shows how a task goes on until it is done.

    Exit code 0: completed, 1: failed, 3: cancelled, 4: expired.
    """
    from goatherd.terminal._task_run import watch_task

    raise typer.Exit(watch_task(reach(url, data), task, as_json=as_json))


@task.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    status: Annotated[str | None, typer.Option(help="Only those with this status.")] = None,
    label: Annotated[str | None, typer.Option(help="Only those with this label.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Lists your newest tasks."""
    from goatherd.terminal._task_run import list_all

    raise typer.Exit(list_all(reach(url, data), limit=limit, status=status, label=label))


@task.command()
def show(
    task: Task,
    subtask: Annotated[str | None, typer.Argument(help="One of its subtasks instead.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Shows a task or a subtask, as JSON."""
    from goatherd.terminal._task_run import show_one

    raise typer.Exit(show_one(reach(url, data), task, subtask))


@task.command()
def results(
    task: Task,
    status: Annotated[str | None, typer.Option(help="Only of subtasks with this status.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Writes all subtasks with inputs and results to stdout, a JSON object a line."""
    from goatherd.terminal._task_run import print_results

    raise typer.Exit(print_results(reach(url, data), task, status))


@task.command()
def cancel(task: Task, url: Url = None, data: Data = None) -> None:
    """Cancels a task: what nobody has at once, the rest when its workers have heard of it."""
    _change("cancel", task, url, data)


@task.command()
def pause(task: Task, url: Url = None, data: Data = None) -> None:
    """Gives nothing out until `resume`. Who has something may finish it."""
    _change("pause", task, url, data)


@task.command()
def resume(task: Task, url: Url = None, data: Data = None) -> None:
    """Goes on after `pause`."""
    _change("resume", task, url, data)


@task.command()
def requeue(
    task: Task,
    status: Annotated[
        list[str] | None, typer.Option(help="dead (the default), failed or cancelled; as often as you like.")
    ] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Gives dead subtasks another chance, with all their attempts."""
    _change("requeue", task, url, data, status or ["dead"])


def _change(
    what: str, task: str, url: str | None, data: Path | None, statuses: list[str] | None = None
) -> None:
    from goatherd.terminal._task_run import change

    raise typer.Exit(change(reach(url, data), what, task, statuses))
