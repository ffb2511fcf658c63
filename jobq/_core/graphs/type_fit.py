"""Whether a value of one annotated type fits another one: a check of workflows before they are inserted.

Values pass as JSON, and are read as strictly as the arguments of a call. It refuses what it can be
sure of. What it does not know fits: the runner checks the values themselves.
"""

from __future__ import annotations

import enum
from collections import abc
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, TypeVar, get_args, get_origin
from uuid import UUID

from jobq._core.graphs.json_shape import fields_of, plain
from jobq._core.hints import UNIONS

UNKNOWN = Any
_LISTS = (list, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence)
_SETS = (set, frozenset, abc.Set, abc.MutableSet)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_SCALARS = (str, bool, int, float)
# JSON has them as text or as a number.
_WITHOUT_PARTS = (*_SCALARS, bytes, datetime, date, time, timedelta, Decimal, UUID, type(None))


class NoSuchPart(Exception):
    """The type has no part of this name."""


def part(hint: Any, key: str | int) -> tuple[Any, str | int]:
    """Return the type of the attribute or item `key` of a value of type `hint`, and its key in JSON.

    The type is Any if it is not known. Raises NoSuchPart if such a value cannot have it.
    """
    hint = plain(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return UNKNOWN, key
    if origin in UNIONS:
        options = [each for each in arguments if each is not type(None)]
        return part(options[0], key) if len(options) == 1 else (UNKNOWN, key)
    if (fields := fields_of(origin or hint)) is not None:
        if isinstance(key, int):
            if not fields.as_list:
                raise NoSuchPart(f"{name(hint)} has fields, not items: {', '.join(fields.types) or 'none'}")
            return UNKNOWN, key
        if key in fields.types:
            return fields.types[key], fields.key(key)
        if fields.open:
            return UNKNOWN, key
        raise NoSuchPart(f"{name(hint)} has no field {key!r} in JSON; it has {', '.join(fields.types) or 'none'}")
    if origin in _MAPPINGS and len(arguments) == 2:
        return arguments[1], key
    if origin in _LISTS and arguments:
        if isinstance(key, str):
            raise NoSuchPart(f"{name(hint)} has no field {key!r}: it is a list")
        return arguments[0], key
    if hint in _WITHOUT_PARTS:
        raise NoSuchPart(f"{name(hint)} has no parts in JSON: pass it on whole")
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        raise NoSuchPart(f"{name(hint)} is its value in JSON, without parts: pass it on whole")
    return UNKNOWN, key


def element(hint: Any) -> Any:
    """Return the type of the elements of a value of type `hint`; Any if it is not known.

    Raises NoSuchPart if such a value is no list.
    """
    hint = plain(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (*_LISTS, *_SETS) and arguments:
        return arguments[0]
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return arguments[0]
    if _shape(hint) not in (None, "list") or hint is type(None) or hint is bytes:
        raise NoSuchPart(f"{name(hint)} is no list")
    return UNKNOWN


def fits(produced: Any, expected: Any) -> bool:
    """Return False if values of type `produced` are, in JSON, none of type `expected`.

    Each member of a produced union must fit: None for a parameter that takes none is a mistake.
    """
    numbers = get_origin(expected) is Literal and all(isinstance(each, int) for each in get_args(expected))
    produced, expected = plain(produced), plain(expected)
    if numbers and produced in (int, bool):  # Literal[1] takes True, because they are equal
        return True
    if produced is Any or expected in (Any, object) or produced == expected:
        return True
    if isinstance(produced, TypeVar) or isinstance(expected, TypeVar):
        return True
    if get_origin(produced) in UNIONS:
        return all(fits(each, expected) for each in get_args(produced))
    if get_origin(expected) in UNIONS:
        return any(fits(produced, each) for each in get_args(expected))
    if produced in _SCALARS and expected in _SCALARS:
        return produced is expected or (produced is int and expected is float)
    made, wanted = get_origin(produced) or produced, get_origin(expected) or expected
    inner, outer = get_args(produced), get_args(expected)
    if made in _LISTS and wanted in _LISTS:
        return not inner or not outer or fits(inner[0], outer[0])
    if made in _MAPPINGS and wanted in _MAPPINGS:
        # Keys are text in JSON, and are read as what they are to be.
        return len(inner) != 2 or len(outer) != 2 or fits(inner[1], outer[1])
    shapes = [_shape(produced), _shape(expected)]
    return None in shapes or shapes[0] == shapes[1]


def _shape(hint: Any) -> str | None:
    """Return what such a value is in JSON; None if that is not known."""
    kind = get_origin(hint) or hint
    if kind in _SCALARS:
        return {str: "text", bool: "boolean"}.get(kind, "number")
    if kind is type(None):
        return "null"
    if kind in (*_LISTS, *_SETS, tuple):
        return "list"
    if kind in _MAPPINGS:
        return "object"
    if (fields := fields_of(kind)) is not None and fields.known_form:
        return "list" if fields.as_list else "object"
    return None


def name(hint: Any) -> str:
    """Return how an annotation is written."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is None or hint is type(None):
        return "None"
    if origin in UNIONS:
        return " | ".join(name(each) for each in arguments)
    if isinstance(hint, type) and not arguments:
        return hint.__name__
    if isinstance(origin, type) and arguments:
        return f"{origin.__name__}[{', '.join('...' if each is ... else name(each) for each in arguments)}]"
    return str(hint).replace("typing.", "")
