"""What goes wrong between actors.

```
ActorError
├── Refused            the asked actor answered with an error of its own, without a type of ours
├── AskTimeout         no answer in time; whether the request was applied is unknown
├── ActorStopped       the asked actor does not exist, or stopped before it answered
├── ActorFailed        the asked actor failed at this very request
├── Unhandled          the asked actor has no answer to this kind of request, as it is now
├── MailboxFull        the asked actor's mailbox is bounded, and full
├── StashFull          an actor stashed more than its stash holds
├── DeathPact          a watched actor stopped, and its watcher did not handle that
├── NameTaken          a live sibling has this name
├── NotAChild          only children can be stopped
├── NotDurable         something that has to go through continue-as-new can't be written down
├── StateTooLarge      the actor can't go on to its next run, and this one takes no more
├── AnswerTooLarge     it was applied, and its answer can't be carried
└── MessageTooLarge    it was not sent
```
"""

from __future__ import annotations

from goatherd.errors import GoatherdError


class ActorError(GoatherdError):
    code = "actor-error"


class Refused(ActorError):
    code = "refused"


class AskTimeout(ActorError):
    code = "ask-timeout"
    retryable = True


class ActorStopped(ActorError):
    code = "actor-stopped"


class ActorFailed(ActorError):
    code = "actor-failed"


class Unhandled(ActorError):
    code = "unhandled"


class MailboxFull(ActorError):
    code = "mailbox-full"
    retryable = True


class StashFull(ActorError):
    code = "stash-full"


class DeathPact(ActorError):
    code = "death-pact"


class NameTaken(ActorError):
    code = "name-taken"


class NotAChild(ActorError):
    code = "not-a-child"


class NotDurable(ActorError):
    code = "not-durable"


class StateTooLarge(ActorError):
    code = "state-too-large"


class AnswerTooLarge(ActorError):
    code = "answer-too-large"


class MessageTooLarge(ActorError):
    code = "message-too-large"
