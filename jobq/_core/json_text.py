"""JSON text that PostgreSQL's jsonb takes, or a ValueError that says where it cannot and what to do."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
# Numbers that PostgreSQL would store as others: it has no negative zero, and writes 1e+22 as a whole number. Text is matched,
# to be passed over.
_NUMBERS = re.compile(r'"(?:[^"\\]|\\.)*"|-0\.0(?![0-9])|-?[0-9.]+e\+[0-9]+')
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def encode(value: Any, what: str, limit: int | None = None) -> str:
    """Return `value` (dicts with text keys, lists, text, numbers, booleans, None) as JSON text.

    Floats are written so that they are read from PostgreSQL as they are. Raises ValueError, its message starting with `what`,
    for NaN and infinity, NUL characters, lone surrogates, other types, and text of more than `limit` bytes.
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
    """Raise ValueError when `size` bytes are more than `limit`."""
    if size > limit:
        raise ValueError(
            f"{what}: {size} bytes as JSON, and at most {limit} are allowed: "
            "store the data in a table of yours and pass its id"
        )


def _stored_number(match: re.Match[str]) -> str:
    text = match[0]
    if text.startswith('"'):
        return text
    # Below what a float can be, and not 0 to PostgreSQL: it is read as -0.0.
    return "-1e-400" if text == "-0.0" else f"{float(text):.1f}"


def ascii_only(text: str) -> str:
    """Return JSON text with escapes for all that is not ASCII: the same value in every encoding."""
    return text if text.isascii() else _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], text)


def _fault(value: Any, where: str) -> str | None:  # noqa: PLR0912  # one a kind of value
    """Return what is wrong with the first unusable part of `value`, or None. Depth may be the fault: no recursion."""
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
                if "\0" in part:
                    return f"{path} contains a NUL character, which PostgreSQL cannot store: remove it"
                if not _is_unicode(part):
                    return f"{path} contains a lone surrogate, so it is no Unicode text: decode it strictly"
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


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
