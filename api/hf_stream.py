"""Generated text as events while it is made. Source of the shape: text-generation-inference."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import orjson
from starlette.types import Scope

from api.errors import error_body
from api.hf_inputs import Asked
from api.hf_outputs import end_json, token_json
from api.inference_calls import Talk
from goatherd.contracts.inference import Token
from goatherd.contracts.inference_work import Outcome, Piece
from goatherd.contracts.model import Json
from goatherd.errors import GoatherdError
from goatherd.telemetry import get_logger

log = get_logger(__name__)


async def text_events(scope: Scope, talk: Talk, asked: Asked) -> AsyncGenerator[bytes]:
    """One event for each token, then one with the whole text. Joined, the tokens' texts are the text: where
    those that the model names are not (half characters, what may yet become a stop text), a piece is one."""
    index, sent = 0, 0
    last = Token(id=0, text="", logprob=0.0)
    try:
        async for one in talk:
            if isinstance(one, Outcome):
                yield _end(one, index, sent, last, asked)
                return
            for token in _tokens(one, last):
                index += 1
                last = token
                yield _event(
                    {"index": index, "token": token_json(token), "generated_text": None, "details": None}
                )
            sent += len(one.text)
    except GoatherdError as error:
        yield _event(error_body(scope, error))
    except Exception:
        log.exception("stream failed")
        yield _event(error_body(scope, GoatherdError("unforeseen")))


def _tokens(piece: Piece, last: Token) -> list[Token]:
    given = piece.tokens or []
    if given and "".join(token.text for token in given) == piece.text:
        return given
    if not piece.text:
        return []
    known = given[-1] if given else last
    return [known.model_copy(update={"text": piece.text, "special": False})]


def _end(outcome: Outcome, index: int, sent: int, last: Token, asked: Asked) -> bytes:
    text: str = outcome.output["generated_text"]
    # What no piece had: the answer has it all.
    rest = text[sent:]
    token = last.model_copy(update={"text": rest, "special": not rest})
    details = None
    if asked.parameters.get("details"):
        prompt = outcome.finish.usage.prompt_tokens if outcome.finish else 0
        details = {**end_json(outcome.finish, asked.parameters.get("seed")), "input_length": prompt}
    whole = f"{asked.items[0].inputs}{text}" if asked.parameters.get("return_full_text") else text
    return _event(
        {"index": index + 1, "token": token_json(token), "generated_text": whole, "details": details}
    )


def _event(content: Json) -> bytes:
    return b"data:%b\n\n" % orjson.dumps(content)
