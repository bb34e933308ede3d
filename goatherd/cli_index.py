"""`goatherd index …`: indexes from the command line. What a command needs is imported when it runs."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer

from goatherd.cli_task import Data, Url, reach

index = typer.Typer(
    no_args_is_help=True, help="Indexes: fill them with documents, find these by meaning and by words."
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The index's name.")]
Model = Annotated[
    str | None, typer.Option(help="The embedding model. Without one, words are found, or vectors that came.")
]
Dimensions = Annotated[int | None, typer.Option(min=0, help="Of vectors that documents bring.")]
Backend = Annotated[str | None, typer.Option(help="faiss (the default), scann or elasticsearch.")]
Metric = Annotated[str | None, typer.Option(help="cosine (the default), ip or l2.")]
Lexical = Annotated[str | None, typer.Option(help="What finds words: auto, tantivy, elasticsearch or off.")]
Language = Annotated[str | None, typer.Option(help="Of the stemming of words: en (the default), de, … none.")]
Splitter = Annotated[str | None, typer.Option(help="How texts are cut: text (the default), markdown, none.")]
Size = Annotated[int | None, typer.Option("--chunk-size", help="Most characters of a chunk.")]
Overlap = Annotated[int | None, typer.Option("--chunk-overlap", help="Characters that chunks share.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="Any other, such as faiss.kind=hnsw; as often as you like."
    ),
]

_USAGE = 2


class Mode(StrEnum):
    DENSE = "dense"
    LEXICAL = "lexical"
    HYBRID = "hybrid"


@index.command()
def create(
    name: Name,
    model: Model = None,
    dimensions: Dimensions = None,
    backend: Backend = None,
    metric: Metric = None,
    lexical: Lexical = None,
    language: Language = None,
    splitter: Splitter = None,
    chunk_size: Size = None,
    chunk_overlap: Overlap = None,
    option: Options = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="Yours: an object.")] = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Makes an index. The same again finds it made."""
    body: dict[str, Any] = {"name": name}
    body |= _spec(
        {"model": model, "dimensions": dimensions, "backend": backend, "metric": metric},
        {"lexical": lexical, "language": language},
        {"splitter": splitter, "size": chunk_size, "overlap": chunk_overlap},
        option,
    )
    if metadata is not None:
        body["metadata"] = _object(metadata, "--metadata")
    from goatherd.terminal._index_run import create_index

    raise typer.Exit(create_index(reach(url, data), body))


@index.command("list")
def list_(url: Url = None, data: Data = None) -> None:
    """Lists your indexes, by name."""
    from goatherd.terminal._index_run import list_indexes

    raise typer.Exit(list_indexes(reach(url, data)))


@index.command()
def show(name: Name, url: Url = None, data: Data = None) -> None:
    """Shows an index: how it is made, and how much is in it."""
    from goatherd.terminal._index_run import show_index

    raise typer.Exit(show_index(reach(url, data), name))


@index.command()
def load(
    name: Name,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH…", help="Folders, text files, .jsonl files of documents; `-` is stdin."),
    ],
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Which files of folders, instead; as often as you like."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Which files and folders not; as often as you like."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What all ids begin with.")] = "",
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", help="Removes what was loaded before, under this --prefix, and is in no PATH now."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Waits until all is taken in.")] = True,
    url: Url = None,
    data: Data = None,
) -> None:
    """Puts documents into an index; again, only those that have changed.

    Of a folder, its text, markdown and code files: their ids are their paths within it, their metadata path,
    title and modified. A pattern with a `/` is compared with the path, any other with the name. A line of a
    .jsonl file is an object with id, text (or vector) and metadata. Ctrl-C leaves what was sent. Exit code 1:
    not all could be taken in.
    """
    from goatherd.terminal._index_load import Wish
    from goatherd.terminal._index_run import load_index
    from goatherd.terminal._index_sources import Choice

    choice = Choice(tuple(include or ()), tuple(exclude or ()), prefix)
    wish = Wish(name, delete=delete, prefix=prefix, wait=wait)
    raise typer.Exit(load_index(reach(url, data), wish, paths, choice))


@index.command()
def search(
    name: Name,
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    k: Annotated[int, typer.Option("-k", min=1, max=1_000, help="At most so many hits.")] = 10,
    filter: Annotated[
        str | None, typer.Option(metavar="JSON", help='Of metadata: {"lang": "en", "year": {"gte": 2020}}.')
    ] = None,
    mode: Annotated[Mode | None, typer.Option(help="Default: hybrid if the index can.")] = None,
    per_document: Annotated[
        bool, typer.Option("--per-document", help="Only the best place of each document.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Where each hit stands by meaning and by words.")
    ] = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Finds places in documents. On a terminal the words that were found stand out; elsewhere a JSON object a
    line."""
    body: dict[str, Any] = {"text": text, "k": k, "highlight": True}
    if filter is not None:
        body["filter"] = _filter(filter)
    if mode is not None:
        body["mode"] = mode.value
    body |= {key: True for key, asked in (("per_document", per_document), ("explain", explain)) if asked}
    from goatherd.terminal._index_run import search_index

    raise typer.Exit(search_index(reach(url, data), name, body))


@index.command()
def doc(
    name: Name,
    id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    url: Url = None,
    data: Data = None,
) -> None:
    """Shows a document as the index has it."""
    from goatherd.terminal._index_run import show_document

    raise typer.Exit(show_document(reach(url, data), name, id))


@index.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Does not ask.")] = False,
    url: Url = None,
    data: Data = None,
) -> None:
    """Deletes an index with all its documents."""
    from goatherd.terminal._index_run import delete_index

    raise typer.Exit(delete_index(reach(url, data), name, sure=yes))


@index.command()
def pause(name: Name, url: Url = None, data: Data = None) -> None:
    """Takes nothing in until `resume`. It can be searched all the same."""
    _change(name, "pause", url, data)


@index.command()
def resume(name: Name, url: Url = None, data: Data = None) -> None:
    """Goes on after `pause`."""
    _change(name, "resume", url, data)


@index.command()
def retry(name: Name, url: Url = None, data: Data = None) -> None:
    """Tries documents again that could not be taken in."""
    _change(name, "retry", url, data)


@index.command()
def cancel(name: Name, url: Url = None, data: Data = None) -> None:
    """Gives up what is to be taken in, and a version that is being built."""
    _change(name, "cancel", url, data)


@index.command()
def rebuild(
    name: Name,
    model: Model = None,
    dimensions: Dimensions = None,
    backend: Backend = None,
    metric: Metric = None,
    lexical: Lexical = None,
    language: Language = None,
    splitter: Splitter = None,
    chunk_size: Size = None,
    chunk_overlap: Overlap = None,
    option: Options = None,
    url: Url = None,
    data: Data = None,
) -> None:
    """Builds a new version beside the one that is searched, which it replaces when it is complete.

    What is not given stays as it is. But a group, such as that of chunking, is replaced as a whole; only the
    splitter stays unless another is named.
    """
    body = _spec(
        {"model": model, "dimensions": dimensions, "backend": backend, "metric": metric},
        {"lexical": lexical, "language": language},
        {"splitter": splitter, "size": chunk_size, "overlap": chunk_overlap},
        option,
    )
    _change(name, "rebuild", url, data, body)


def _change(name: str, what: str, url: str | None, data: Any, body: dict[str, Any] | None = None) -> NoReturn:
    from goatherd.terminal._index_run import change_index

    raise typer.Exit(change_index(reach(url, data), name, what, body))


def _spec(
    vectors: dict[str, Any], words: dict[str, Any], chunking: dict[str, Any], options: list[str] | None
) -> dict[str, Any]:
    """What is given of them, as the API takes it."""
    spec = {key: value for key, value in (vectors | words).items() if value is not None}
    if cut := {key: value for key, value in chunking.items() if value is not None}:
        spec["chunking"] = cut
    for option in options or []:
        key, equals, value = option.partition("=")
        if not equals or not key:
            _fail(f"--option {option!r} is not KEY=VALUE.")
        *groups, last = key.split(".")
        place = spec
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                _fail(f"--option {option!r}: {group!r} is no group of options.")
        place[last] = _json_or_text(value)
    return spec


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _object(text: str, option: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        _fail(f"{option} is not JSON: {error}.")
    if not isinstance(value, dict):
        _fail(f"{option} is no JSON object.")
    return value


def _filter(text: str) -> dict[str, Any]:
    from goatherd.contracts.filters import read_filter
    from goatherd.errors import Invalid

    value = _object(text, "--filter")
    try:
        read_filter(value)
    except Invalid as error:
        _fail(f"--filter{error.pointer or ''}: {error.message}.")
    return value


def _fail(message: str) -> NoReturn:
    typer.secho(message, fg="red", err=True)
    raise typer.Exit(_USAGE)
