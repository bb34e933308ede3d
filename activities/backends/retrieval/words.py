"""What counts as a word of a text, by language: for tantivy's index, its queries and its highlights alike."""

from __future__ import annotations

import unicodedata

from tantivy import Filter, TextAnalyzer, TextAnalyzerBuilder, Tokenizer

_STEMMERS = {
    "en": "english",
    "de": "german",
    "fr": "french",
    "es": "spanish",
    "it": "italian",
    "pt": "portuguese",
    "nl": "dutch",
    "sv": "swedish",
}

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]\p{{M}}*|[\p{{Alphabetic}}\p{{M}}\p{{N}}--[{_UNSPACED}]]+"
"""Letters and digits in a row, with their marks; where scripts put no spaces, each letter alone."""

_LONGEST_BYTES = 256
"""What is longer is no word that anybody looks for."""


def analyzer(language: str) -> TextAnalyzer:
    """Words in small letters, and as their stems. `none`: not as their stems."""
    building = TextAnalyzerBuilder(Tokenizer.regex(_WORD))
    building = building.filter(Filter.remove_long(_LONGEST_BYTES)).filter(Filter.lowercase())
    if language != "none":
        building = building.filter(Filter.stemmer(_STEMMERS[language]))
    return building.build()


def composed(text: str) -> str:
    """The text with its accents as parts of their letters (NFC), so that both ways to write them are one.
    What is no character (a lone surrogate) is a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode(errors="replace").decode()
    return unicodedata.normalize("NFC", text)
