"""What goes wrong between an event-sourced actor and its journal.

```
ActorError
└── PersistenceError
    ├── JournalFailed     whether the events are written is unknown; recovery will tell
    ├── EventsRejected    the journal does not take these events; none is written
    └── RecoveryError     the journal can't be read, or what it says makes no state
```

That another writer was there first is `goatherd.errors.Fenced`.
"""

from __future__ import annotations

from goatherd.actors._errors import ActorError


class PersistenceError(ActorError):
    code = "persistence-error"


class JournalFailed(PersistenceError):
    code = "journal-failed"


class EventsRejected(PersistenceError):
    code = "events-rejected"


class RecoveryError(PersistenceError):
    code = "recovery-error"
