"""Chats and completions as OpenAI's clients ask for them, as items of a task."""

from __future__ import annotations

from typing import Any

from api.errors import InvalidInput
from api.openai_schemas import ChatBody, ChatMessage, CompletionBody, TextPart
from goatherd.contracts.inference_tasks import ChatTurn, Conversation, ConversationParameters
from goatherd.contracts.inference_work import ModelEntry, WorkItem
from goatherd.contracts.model import Json
from goatherd.errors import Invalid

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_HERE = ("max_tokens", "temperature", "top_p", "seed", "frequency_penalty", "presence_penalty", "logprobs")
_PASSED_ON = (
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "response_format",
    "logit_bias",
    "reasoning_effort",
    "verbosity",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "moderation",
    "prompt_cache_options",
)
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "modalities": (["text"],),
}
"""Values that ask for nothing that any model does not do anyway."""


def chat_item(entry: ModelEntry, body: ChatBody) -> WorkItem:
    """Raises `InvalidInput`, `Invalid`."""
    parameters = {name: value for name in _HERE if (value := getattr(body, name)) is not None}
    parameters |= _most(body)
    if body.stop is not None:
        parameters["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    if entry.spec.provider == "openai":
        passed_on = {name: value for name in _PASSED_ON if (value := getattr(body, name)) is not None}
        if not all(_is_plain(message) for message in body.messages):
            passed_on["messages"] = [
                message.model_dump(mode="json", exclude_unset=True) for message in body.messages
            ]
        if passed_on:
            parameters["passed_on"] = passed_on
    else:
        _refuse(entry, body)
    turns = [_turn(message) for message in body.messages]
    conversation = Conversation(messages=turns).model_dump(mode="json")
    ConversationParameters.model_validate(parameters)
    return WorkItem(inputs=conversation, parameters=parameters)


def completion_items(body: CompletionBody) -> list[WorkItem]:
    """One for each prompt. Raises `Invalid`."""
    names = ("temperature", "top_p", "seed", "frequency_penalty")
    parameters: Json = {name: value for name in names if (value := getattr(body, name)) is not None}
    if body.max_tokens is not None:
        parameters["max_new_tokens"] = body.max_tokens
    if body.stop is not None:
        parameters["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    if body.logprobs is not None:
        parameters["details"] = True
    prompts = texts(body.prompt, "/prompt")
    if body.stream and len(prompts) > 1:
        raise Invalid("Only one prompt can be streamed.", pointer="/prompt")
    return [WorkItem(inputs=prompt, parameters=parameters) for prompt in prompts]


MOST_TEXTS = 2_048


def texts(given: str | list[Any], pointer: str) -> list[str]:
    """One or several, none empty. Raises `Invalid`."""
    several = [given] if isinstance(given, str) else given
    if not 0 < len(several) <= MOST_TEXTS:
        raise Invalid(f"Has to have 1 to {MOST_TEXTS} texts.", pointer=pointer)
    for index, text in enumerate(several):
        if not isinstance(text, str):
            raise Invalid("Has to be a text or a list of texts: tokens are the model's own.", pointer=pointer)
        if not text:
            where = pointer if isinstance(given, str) else f"{pointer}/{index}"
            raise Invalid("Must not be empty.", pointer=where)
    return several


def _most(body: ChatBody) -> Json:
    older, newer = body.max_tokens, body.max_completion_tokens
    if older is not None and newer is not None and older != newer:
        raise Invalid("Give this or `max_completion_tokens`, not both.", pointer="/max_tokens")
    return {} if newer is None else {"max_tokens": newer}


def _refuse(entry: ModelEntry, body: ChatBody) -> None:
    wrong = [
        f"/{name}"
        for name in _PASSED_ON
        if (value := getattr(body, name)) is not None and value not in _NEUTRAL.get(name, ())
    ]
    for index, message in enumerate(body.messages):
        wrong += [f"/messages/{index}{place}" for place in _beyond(message)]
    if wrong:
        detail = f"Not for the model {entry.name!r}: only the provider `openai` has it."
        raise InvalidInput(
            [{"pointer": place, "detail": detail} for place in wrong], code="unsupported-parameter"
        )


def _beyond(message: ChatMessage) -> list[str]:
    """What of it is more than somebody's text."""
    places = [
        f"/{name}"
        for name in ("refusal", "audio", "tool_calls", "tool_call_id", "function_call")
        if getattr(message, name)
    ]
    if message.role not in _ROLES:
        places.append("/role")
    if message.content is None:
        places += ["/content"] if not places else []
    elif not isinstance(message.content, str):
        places += [
            f"/content/{index}/type"
            for index, part in enumerate(message.content)
            if not isinstance(part, TextPart)
        ]
    return places


def _is_plain(message: ChatMessage) -> bool:
    return not _beyond(message) and message.name is None


def _turn(message: ChatMessage) -> ChatTurn:
    content = message.content or ""
    if not isinstance(content, str):
        content = "\n".join(part.text for part in content if isinstance(part, TextPart))
    if len(content) > 1_000_000:
        raise Invalid("A message has at most 1000000 characters.", pointer="/messages")
    role: Any = _ROLES.get(message.role, "user")
    return ChatTurn(role=role, content=content)
