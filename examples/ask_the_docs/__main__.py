"""python -m examples.ask_the_docs [--url URL] "How do I take a subtask?\""""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

import httpx

from examples.ask_the_docs.citing import EXAMPLE, prompt, sources
from examples.ask_the_docs.http import TIMEOUT, Docs, Unanswered
from examples.ask_the_docs.pages import pages
from examples.models.packages import NotInstalled

URL = "http://127.0.0.1:8080"
INDEX = "goatherd-docs"
MODEL = "all-minilm-l6-v2"


async def ask(
    url: str, question: str, *, passages: int = 4, chat_model: str | None = None, index: str = INDEX
) -> tuple[int, str, list[str]]:
    """How many pages had to be sent, the answer, and where it comes from."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT) as http:
        docs = Docs(http, index=index, model=MODEL)
        await docs.made()
        sent = await docs.filled(pages())
        if sent:
            print(f"{sent} pages were new or changed; they are in the index {index!r}.", file=sys.stderr)
        hits = await docs.found(question, k=passages)
        answer = await docs.answered(prompt(question, hits), example=EXAMPLE, chat_model=chat_model)
    return sent, answer, sources(answer, hits)


def main(arguments: list[str] | None = None) -> None:
    asked = _asked(arguments)
    try:
        _, answer, lines = asyncio.run(
            ask(asked.url, asked.question, passages=asked.passages, chat_model=asked.chat_model)
        )
    except (Unanswered, NotInstalled) as error:
        sys.exit(str(error))
    except httpx.TransportError as error:
        sys.exit(
            f"Nobody answers at {asked.url} ({error or type(error).__name__}). `goatherd up` starts one."
        )
    print(answer, *lines, sep="\n")


def _asked(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.ask_the_docs", description="Answers from this repository's documentation."
    )
    parser.add_argument("question")
    parser.add_argument(
        "--url", default=os.environ.get("GOATHERD_URL", URL), help=f"the API of a running Goatherd ({URL})"
    )
    parser.add_argument(
        "--passages", type=int, default=4, help="how many passages the model is given (4)", metavar="N"
    )
    parser.add_argument("--chat-model", help="the model that answers (the API's default)", metavar="NAME")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
