"""JSON text that PostgreSQL's jsonb accepts, or a ValueError that says where and what to do."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from jobq._core.text import unstorable

_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
# Numbers that PostgreSQL would change: it has no negative zero, and writes 1e+22 as an integer.
# Strings are matched so that they are skipped.
_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"|-0\.0(?![0-9])|-?[0-9.]+e\+[0-9]+')
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def encode(value: Any, what: str, limit: int | None = None) -> str:
    """Return `value` (dicts with text keys, lists, text, numbers, booleans, None) as JSON text.

    Floats come back from PostgreSQL unchanged.

    Args:
        value: the value.
        what: the beginning of the error message.
        limit: most bytes of text.

    Raises:
        ValueError: for NaN and infinity, NUL characters, lone surrogates, other types, and text
            that is too long.
    """
    try:
        text = _ENCODER.encode(value)
        if "-0.0" in text or "e+" in text:
            text = _NUMBERS.sub(_stored_number, text)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(_fault(value, what) or f"{what}: {error}") from None
    if "\\u0000" in text and (fault := _fault(value, what)):
        raise ValueError(fault)
    if limit is not None:
        check_size(size, what, limit)
    return text


def check_size(size: int, what: str, limit: int) -> None:
    """Raise ValueError if `size` bytes are more than `limit`."""
    if size > limit:
        raise ValueError(
            f"{what}: {size} bytes as JSON, and at most {limit} are allowed: "
            "store the data in a table of yours and pass its id"
        )


def _stored_number(match: re.Match[str]) -> str:
    text = match[0]
    if text.startswith('"'):
        return text
    # Smaller than any float, but not 0 for PostgreSQL: it is read as -0.0.
    return "-1e-400" if text == "-0.0" else f"{float(text):.1f}"


def ascii_only(text: str) -> str:
    """Return JSON text with escapes for all non-ASCII characters.

    It has the same value in every encoding.
    """
    return text if text.isascii() else _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _fault(value: Any, where: str) -> str | None:  # one a kind of value
    """Return the fault of the first unusable part of `value`, or None.

    Depth may be the fault, so this does not recurse.
    """
    stack: list[tuple[Any, str, int]] = [(value, where, 0)]
    while stack:
        part, path, depth = stack.pop()
        if depth > 500:
            return f"{where} is nested more than 500 deep: pass a flatter value"
        match part:
            case None | bool() | int():
                pass
            case float():
                if not math.isfinite(part):
                    return f"{path}={part!r}: JSON has no NaN and no infinity; pass None instead"
            case str():
                if (fault := unstorable(part)) is not None:
                    return f"{path} {fault}"
            case dict():
                for name, inner in part.items():
                    if not isinstance(name, str):
                        return f"{path} has the key {name!r}: JSON objects have text as keys"
                    stack.append((name, f"{path}, key {name!r},", depth + 1))
                    stack.append((inner, f"{path}[{name!r}]", depth + 1))
            case list() | tuple():
                stack.extend((inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(part))
            case _:
                return f"{path} is of type {type(part).__name__}, which JSON does not have"
    return None
