"""Words of a filter text: splitting at white space and quotes, and quoting."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from jobq._core.text import brief
from jobq.errors import InvalidFilter

# A character, and whether it was quoted and so has no special meaning. An opening quote leaves
# an empty one.
Char = tuple[str, bool]

_PLAIN = re.compile(r"[\w.@/+-]+")
_CODE = re.compile(r"[0-9a-fA-F]{4}")
# Characters that browser fields change and terminals do not show.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def split_words(text: str) -> list[list[Char]]:
    """Return the words of `text`.

    In double quotes, white space is literal, a backslash takes the next character literally, and
    ``\\u000a`` is the character with that number. Raises InvalidFilter for quotes that do not end.
    """
    words: list[list[Char]] = []
    word: list[Char] = []
    opened: int | None = None
    characters = iter(enumerate(text))
    for at, char in characters:
        if opened is not None:
            if char == "\\":
                at, char = next(characters, (at, ""))  # noqa: PLW2901  # a pair is one character
                if char == "u" and (code := _CODE.match(text, at + 1)):
                    char = chr(int(code[0], 16))  # noqa: PLW2901
                    for _ in code[0]:
                        next(characters)
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
    """Return the parts of `word` between marks outside quotes."""
    parts: list[Sequence[Char]] = []
    start = 0
    for at, char in enumerate(word):
        if char == (mark, False):
            parts.append(word[start:at])
            start = at + 1
    return [*parts, word[start:]]


def plain(word: Iterable[Char]) -> str:
    """Return the characters without their quoting."""
    return "".join(char for char, _ in word)


def quote(text: str, mark: str | None = None) -> str:
    """Return `text` quoted: :func:`split_words` gives one literal word.

    :func:`split_at` does not split it at `mark`.
    """
    if _PLAIN.fullmatch(text) and (mark is None or mark not in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
