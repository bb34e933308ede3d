"""The tree of errors that Goatherd raises on purpose, drawn in one place.

```
GoatherdError                code, message, detail
├── Invalid                  what was asked makes no sense; the same call fails again
│   ├── MalformedCursor
│   ├── ModelNotFound
│   ├── WrongTask            a model is asked for what it is not for
│   ├── UnreadableMedia      no image or sound that can be decoded
│   ├── DependencyCycle
│   └── ClientIdReused       repeated, but with another content
├── NotFound                 unknown, or somebody else's
├── Conflict                 the state of the resource forbids it
│   ├── LookUp               whether it is a repetition, only the store can tell
│   ├── SessionEnded
│   ├── SessionBusy
│   ├── TaskClosed
│   ├── LeaseLost            it ran out, was given to another, or never was
│   ├── InvalidTransition
│   └── Fenced               a writer that another has replaced
├── Forbidden
├── TooManyRequests          (retry_after_s)
├── ModelBroken              a model can't be loaded until somebody mends its source or the worker
├── Unavailable              a part is down; the same call may pass later (retry_after_s)
└── DeadlineExceeded         no answer in time; whether it was applied is unknown
```

`code` is a stable slug: it is what crosses processes (the `type` of a Temporal ApplicationError) and
what clients match on. HTTP statuses are not decided here but in `api/errors.py`.
"""

from __future__ import annotations

_BY_CODE: dict[str, type[GoatherdError]] = {}


class GoatherdError(Exception):
    """Base of all: `code` for machines, the message for people, `pointer` into the input if known."""

    code = "error"
    retryable = False

    def __init_subclass__(cls) -> None:
        if "code" in cls.__dict__:
            # The first counts: the workflow sandbox may load a module of errors again.
            _BY_CODE.setdefault(cls.code, cls)

    def __init__(self, message: str, *, code: str | None = None, pointer: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.pointer = pointer
        if code is not None:
            self.code = code


class Invalid(GoatherdError):
    code = "invalid"


class MalformedCursor(Invalid):
    code = "malformed-cursor"


class ModelNotFound(Invalid):
    code = "model-not-found"


class WrongTask(Invalid):
    code = "wrong-task"


class UnreadableMedia(Invalid):
    code = "unreadable-media"


class DependencyCycle(Invalid):
    code = "dependency-cycle"


class ClientIdReused(Invalid):
    code = "client-id-reused"


class NotFound(GoatherdError):
    code = "not-found"


class Conflict(GoatherdError):
    code = "conflict"


class SessionEnded(Conflict):
    code = "session-ended"


class SessionBusy(Conflict):
    code = "session-busy"


class LookUp(Conflict):
    code = "look-up"


class TaskClosed(Conflict):
    code = "task-closed"


class LeaseLost(Conflict):
    code = "lease-lost"


class InvalidTransition(Conflict):
    code = "invalid-transition"


class Fenced(Conflict):
    code = "fenced"


class Forbidden(GoatherdError):
    code = "forbidden"


class TooManyRequests(GoatherdError):
    code = "too-many-requests"
    retryable = True

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class ModelBroken(GoatherdError):
    """A model can't be loaded, and trying again changes nothing: its folder or a package is missing, or its
    files are no model of its task. Not `Unavailable`, which passes by itself."""

    code = "model-broken"


class Unavailable(GoatherdError):
    code = "unavailable"
    retryable = True

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(GoatherdError):
    code = "deadline-exceeded"
    retryable = True


_WITHOUT_CLASS: dict[str, type[GoatherdError]] = {
    "another-model": Conflict,
    "cancelled": Unavailable,
    "model-too-large": Unavailable,
    "model-unavailable": Unavailable,
    "no-room": Unavailable,
    "no-worker": Unavailable,
    "out-of-memory": Unavailable,
    "too-long": Invalid,
    "worker-lost": Unavailable,
}
"""Codes that say more than the class of their errors does."""

CODES = frozenset({GoatherdError.code, *_BY_CODE, *_WITHOUT_CLASS})
"""The codes that errors of ours cross processes with."""


def from_code(code: str | None, message: str) -> GoatherdError:
    """The error that `code` names, for an error that came over the wire as its code and message.

    An unknown code gives a plain `GoatherdError` that keeps it.
    """
    if code in _WITHOUT_CLASS:
        return _WITHOUT_CLASS[code](message, code=code)
    kind = _BY_CODE.get(code or "")
    return kind(message) if kind is not None else GoatherdError(message, code=code or "error")
