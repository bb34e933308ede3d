"""How much of a reply has been shown, so that no piece of it is shown twice and none is left out."""

from __future__ import annotations


class ReplyText:
    """One reply as far as it is on the screen. Offsets count code points, as the API's do."""

    def __init__(self) -> None:
        self._shown = ""

    def piece(self, offset: int, text: str) -> str | None:
        """What of a delta is new; None if something before it is missing."""
        if offset > len(self._shown):
            return None
        new = text[len(self._shown) - offset :]
        self._shown += new
        return new

    def whole(self, content: str) -> tuple[str, bool]:
        """What of the reply's text, which replaces all deltas, is new; and whether it contradicts them.

        If so, all of it is new.
        """
        rewritten = not content.startswith(self._shown)
        new = content if rewritten else content[len(self._shown) :]
        self._shown = content
        return new, rewritten
