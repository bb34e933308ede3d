"""What an address may look like.

```
acct-7                    a durable actor: its workflow's id
acct-7/audit#3            an actor below it, with its number
acct-7/~5                 an open ask of it
Cart-shard-2/cart-7       a sharded entity; what would be a sign of an address in its id is escaped
...~0                     an adapter of any of these
```
"""

from __future__ import annotations

import re

from goatherd.errors import Invalid

LONGEST_ID = 500
"""Of a durable actor's id; Temporal takes 1,000 of the whole."""

_ADDRESS = re.compile(
    r"""
    [^/\#~]+ (?:
        (?: /[^/]+ )* /[^/\#~]* \#[^/\#~]+    # an actor below
        | /~\d+                                # an open ask
    )? (?: ~\d+ )?
    | [^/\#~]+ -shard-\d+ /[^/\#~]+ (?: ~\d+ )?
    """,
    re.VERBOSE,
)


def check_id(actor_id: str) -> str:
    """The id of a durable actor, if it can be one.

    Raises:
        Invalid: it would not be found again in an address.
    """
    if not 0 < len(actor_id) <= LONGEST_ID:
        raise Invalid(f"A durable actor's id has from 1 to {LONGEST_ID} characters, not {len(actor_id)}.")
    if any(sign in actor_id for sign in "/#~"):
        raise Invalid(
            f"{actor_id!r} can't be a durable actor's id: /, # and ~ are signs of an address. Put something "
            "else in their place, as urllib.parse.quote(id, safe='') does."
        )
    if actor_id != actor_id.strip():
        raise Invalid(f"{actor_id!r} can't be a durable actor's id: it has spaces around it.")
    return actor_id


def check_address(address: str) -> str:
    """An address, if somebody can have it.

    Raises:
        Invalid: nobody can.
    """
    if _ADDRESS.fullmatch(address) is None:
        raise Invalid(
            f"{address!r} is no address. Of a durable actor it is the id, which has no /, # or ~; of a "
            "sharded entity it is what its type's `address(id)` says; of any other, its ref's `address`."
        )
    return address
