"""Words of a filter's text: what white space and quotes part, and the way back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jobq.errors import InvalidFilter

# A character, and whether it stood in quotes and so means nothing but itself. An opening quote leaves an empty one.
Char = tuple[str, bool]

_PLAIN = re.compile(r"[\w.@/+-]+")


def split_words(text: str) -> list[list[Char]]:
    """Return the words of `text`. In double quotes white space counts, and a backslash takes the next character as it is.

    Raises InvalidFilter for quotes that do not end.
    """
    words: list[list[Char]] = []
    word: list[Char] = []
    opened: int | None = None
    characters = iter(enumerate(text))
    for at, char in characters:
        if opened is not None:
            if char == "\\":
                at, char = next(characters, (at, ""))  # noqa: PLW2901  # a pair is one character
                word.append((char, True))
            elif char == '"':
                opened = None
            else:
                word.append((char, True))
        elif char == '"':
            opened = at
            word.append(("", True))
        elif not char.isspace():
            word.append((char, False))
        elif word:
            words.append(word)
            word = []
    if opened is not None:
        raise InvalidFilter(f'{brief(text[opened:])}: the quotes do not end; write another " behind the value')
    return [*words, word] if word else words


def split_at(word: Sequence[Char], mark: str) -> list[Sequence[Char]]:
    """Return the parts of `word` between marks that stand outside of quotes."""
    parts: list[Sequence[Char]] = []
    start = 0
    for at, char in enumerate(word):
        if char == (mark, False):
            parts.append(word[start:at])
            start = at + 1
    return [*parts, word[start:]]


def plain(word: Iterable[Char]) -> str:
    """Return the characters alone."""
    return "".join(char for char, _ in word)


def quote(text: str, mark: str | None = None) -> str:
    """Return `text` so that :func:`split_words` makes one word of it which means nothing but itself, and which
    :func:`split_at` does not part at `mark`.
    """
    if _PLAIN.fullmatch(text) and (mark is None or mark not in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def brief(text: str) -> str:
    """Return `text` for a message: quoted, escaped, at most 60 characters of it."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
