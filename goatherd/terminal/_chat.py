"""A conversation: lines in, replies out, commands, and what Ctrl-C does. Knows neither terminal nor pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

from goatherd.terminal._api import Api, Feed, MessageView, Refused, SessionView, StreamEvent, Unreachable
from goatherd.terminal._reply import ReplyText
from goatherd.terminal._screen import Screen

INTERRUPTED = 130
_RECENT = 10
_HISTORY = 100
_LISTED = 20
_TITLE = 50
_FINISHED = {"completed", "failed", "cancelled", "deleted"}


class Chat:
    """One person's chat. `open` first; then `run`, or `handle` line by line."""

    def __init__(self, api: Api, screen: Screen, *, model: str | None = None, interactive: bool) -> None:
        self._api = api
        self._screen = screen
        self._model = model
        self._interactive = interactive
        self._session: SessionView | None = None
        self._feed: Feed | None = None
        self._last_reply: str | None = None
        # The reply that is coming, and how it is being called off.
        self._reply: str | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._work: asyncio.Task[bool] | None = None
        self._commands: dict[str, tuple[str, Callable[[str], Awaitable[bool]]]] = {
            "/help": ("shows this", self._help),
            "/new": ("starts another session", self._new),
            "/sessions": ("lists your newest sessions", self._sessions),
            "/open": ("goes on with that session", self._open),
            "/regenerate": ("asks for another reply to your last message", self._regenerate),
            "/history": ("shows the session's messages", self._history),
            "/end": ("ends the session for good", self._end),
        }

    @property
    def commands(self) -> list[str]:
        return [*self._commands, "/quit"]

    @property
    def session(self) -> SessionView:
        """The session that is open."""
        assert self._session is not None, "open first"
        return self._session

    async def open(self, session_id: str | None) -> None:
        """Goes on with a session, showing its newest messages, or starts a new one.

        Raises `Refused` and `Unreachable`.
        """
        if session_id is None:
            session = await self._api.create(self._model)
            recent: list[MessageView] = []
        else:
            session = await self._api.session(session_id)
            recent = await self._api.messages(session_id, limit=_RECENT)
        self._session = session
        self._feed = Feed(self._api, session.id, str(session.last_seq))
        replies = [message.id for message in recent if message.role == "assistant"]
        self._last_reply = replies[-1] if replies else None
        title = f" “{session.title}”" if session.title else ""
        self._screen.notice(f"Session {session.id}{title}, model {session.model}.")
        if self._interactive:
            self._show_messages(recent)
        if session.status != "active":
            self._screen.notice("It has ended and can only be read. /new starts another.")

    async def run(self, read: Callable[[], Awaitable[str | None]]) -> int:
        """Handles lines until there are no more or /quit. 0, or 1 if one failed and nobody was there to see.

        Where nobody is, an interrupt ends it with 130.
        """
        failed = False
        while (line := await read()) is not None and line.strip() != "/quit":
            self._work = asyncio.create_task(self.handle(line))
            try:
                await asyncio.wait({self._work})
                interrupted = self._work.cancelled() or self._cancelling is not None
                failed = self._work.cancelled() or not self._work.result() or failed
            finally:
                self._work.cancel()
                self._work = self._cancelling = None
            if interrupted and not self._interactive:
                return INTERRUPTED
        return 1 if failed and not self._interactive else 0

    async def handle(self, line: str) -> bool:
        """Does what a line says: a command, or a message to post. What goes wrong is shown: False."""
        text = line.strip()
        if not text:
            return True
        name, _, argument = text.partition(" ")
        try:
            if not text.startswith("/"):
                return await self._say(text)
            if text.startswith("//"):
                return await self._say(text[1:])
            if name not in self._commands:
                self._screen.problem(f"There is no {name}. /help shows what there is; //{name[1:]} says it.")
                return False
            return await self._commands[name][1](argument.strip())
        except Refused as refusal:
            self._screen.problem(str(refusal))
        except Unreachable as error:
            self._screen.problem(f"The server does not answer: {error}")
        return False

    def interrupt(self) -> None:
        """What Ctrl-C does: calls off the reply that is coming; again, or if there is none, stops waiting."""
        if self._reply is not None and self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel(self.session.id, self._reply))
        elif self._work is not None:
            self._work.cancel()
            self._screen.notice("stopped waiting")

    async def _cancel(self, session: str, reply: str) -> None:
        try:
            await self._api.cancel(session, reply)
        except (Refused, Unreachable) as error:
            self._screen.problem(f"It can't be cancelled: {error}")

    # -- replies

    async def _say(self, content: str) -> bool:
        reply = await self._api.post(self.session.id, content)
        return True if reply is None else await self._show_reply(reply)

    async def _show_reply(self, reply: str) -> bool:
        """Shows a reply as it comes. Whether it was completed, or cancelled as wanted."""
        self._last_reply = self._reply = reply
        text = ReplyText()
        self._screen.begin_reply()
        try:
            status, failure = await self._follow(reply, text)
        finally:
            self._reply = None
            self._screen.end_reply()
        if status == "failed":
            self._screen.problem(f"The reply failed: {failure}")
        elif status != "completed":
            self._screen.notice(f"({status})")
        return status == "completed" or self._cancelling is not None

    async def _follow(self, reply: str, text: ReplyText) -> tuple[str, str]:
        """Until the reply is finished: how it ended, and why if it failed."""
        assert self._feed is not None, "open first"
        while True:
            try:
                async with aclosing(self._feed.events()) as events:
                    async for event in events:
                        if event.type == "session.ended":
                            return "the session was ended", ""
                        if event.message == reply and (end := await self._on_event(event, text)) is not None:
                            return end
            except Refused as refusal:
                if refusal.status != 410:
                    raise
                # Too much has happened since: take the newest event's number first, then the text.
                self._feed.cursor = str((await self._api.session(self.session.id)).last_seq)
                if (end := await self._catch_up(reply, text)) is not None:
                    return end

    async def _on_event(self, event: StreamEvent, text: ReplyText) -> tuple[str, str] | None:
        kind = event.type.removeprefix("message.")
        if kind == "delta":
            new = text.piece(int(event.data["offset"]), str(event.data["text"]))
            if new is None:
                assert event.message is not None
                return await self._catch_up(event.message, text)
            self._screen.text(new)
        elif kind in _FINISHED:
            if isinstance(content := event.data.get("content"), str):
                self._show_whole(content, text)
            return kind, _reason(event.data.get("error"))
        return None

    async def _catch_up(self, reply: str, text: ReplyText) -> tuple[str, str] | None:
        message = await self._api.message(self.session.id, reply)
        self._show_whole(message.content, text)
        return (message.status, _reason(message.error)) if message.status in _FINISHED else None

    def _show_whole(self, content: str, text: ReplyText) -> None:
        new, rewritten = text.whole(content)
        if rewritten:
            self._screen.notice("(it was begun anew)")
        self._screen.text(new)

    # -- commands

    async def _help(self, _: str) -> bool:
        what = {name: text for name, (text, _) in self._commands.items()}
        what = {**what, "/quit": "leaves; the session stays"}
        lines = [f"{'/open ID' if name == '/open' else name:<12} {text}" for name, text in what.items()]
        self._screen.notice("\n".join([*lines, "Alt-Enter begins a new line, Ctrl-C stops a reply."]))
        return True

    async def _new(self, _: str) -> bool:
        await self.open(None)
        return True

    async def _open(self, session_id: str) -> bool:
        if not session_id:
            self._screen.problem("Which one? /open ID; /sessions lists them.")
            return False
        await self.open(session_id)
        return True

    async def _sessions(self, _: str) -> bool:
        sessions = await self._api.sessions(limit=_LISTED)
        titles = await asyncio.gather(*(self._title(session) for session in sessions))
        for session, title in zip(sessions, titles, strict=True):
            mark = "*" if session.id == self.session.id else " "
            ended = "" if session.status == "active" else f" ({session.status})"
            self._screen.notice(f"{mark} {session.id}  {_local_time(session.created_at)}  {title}{ended}")
        return True

    async def _title(self, session: SessionView) -> str:
        """Of one that has none: how it begins."""
        if session.title:
            return _shortened(session.title)
        try:
            first = await self._api.first_message(session.id)
        except Refused:  # deleted meanwhile, say
            first = None
        return f"“{_shortened(first.content)}”" if first is not None and first.content else "(empty)"

    async def _regenerate(self, _: str) -> bool:
        if self._last_reply is None:
            self._screen.problem("There is no reply yet.")
            return False
        return await self._show_reply(await self._api.regenerate(self.session.id, self._last_reply))

    async def _history(self, _: str) -> bool:
        self._show_messages(await self._api.messages(self.session.id, limit=_HISTORY))
        return True

    async def _end(self, _: str) -> bool:
        await self._api.end(self.session.id)
        self._screen.notice("The session has ended; it stays readable. /new starts another, /quit leaves.")
        return True

    def _show_messages(self, messages: list[MessageView]) -> None:
        for message in messages:
            note = "" if message.status == "completed" else f" ({message.status.replace('_', ' ')})"
            self._screen.message(message.role, message.content, note)


def _local_time(timestamp: str) -> str:
    try:
        return f"{datetime.fromisoformat(timestamp).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return timestamp


def _shortened(text: str) -> str:
    """In one line, cut between words."""
    line = " ".join(text.split())
    if len(line) <= _TITLE:
        return line
    words, _, rest = line[:_TITLE].rpartition(" ")
    return f"{words or rest}…"


def _reason(error: Any) -> str:
    return (
        str(error.get("message") or error.get("code")) if isinstance(error, dict) else "no reason was given"
    )
