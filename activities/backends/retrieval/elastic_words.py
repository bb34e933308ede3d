"""Words in Elasticsearch: queries for them, and what is marked of what they are found in."""

from __future__ import annotations

import re
from typing import Any

from activities.backends.retrieval.elastic_filters import Query

_MOST_WORDS = 500
"""That one query may have: servers refuse more than about a thousand conditions, filters included."""
_WORD = re.compile(r"[A-Za-z0-9_]+|[^\W\x00-\x7f]")
_NOT_ANALYZED = 999_999
"""Characters of a text that are looked through for words to mark; servers refuse a million."""
_PIECE = 160
_PIECES = 3


def words_query(text: str) -> Query:
    """Finds what has any of the text's words. No character of it is an operator.

    Of very many words those count that say most: that the index has, and that few texts have.
    """
    text = text.encode("utf-8", "ignore").decode()
    if len(_WORD.findall(text)) <= _MOST_WORDS:
        return {"match": {"text": {"query": text}}}
    return {
        "more_like_this": {
            "fields": ["text"],
            "like": text,
            "max_query_terms": _MOST_WORDS,
            "min_term_freq": 1,
            "min_doc_freq": 1,
            "minimum_should_match": 1,
        }
    }


def marking() -> dict[str, Any]:
    """Of a search that is to give pieces of texts, with found words between U+0002 and U+0003."""
    return {
        "fields": {"text": {}},
        "pre_tags": ["\2"],
        "post_tags": ["\3"],
        "fragment_size": _PIECE,
        "number_of_fragments": _PIECES,
        "order": "score",
        "max_analyzed_offset": _NOT_ANALYZED,
    }


def pieces(hit: dict[str, Any]) -> list[str]:
    found: list[str] = hit.get("highlight", {}).get("text", [])
    return found


def without_marks(text: str) -> str:
    """The text without the characters that stand around found words."""
    return text.replace("\2", " ").replace("\3", " ")
