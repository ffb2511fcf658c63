"""Whether a value stored as JSON and read again is the same, including types, not only ``==``."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import zip_longest
from typing import Any
from uuid import UUID

from pydantic import BaseModel

# For these types, equal values of one type are the same.
_SCALARS = frozenset({bool, int, str, bytes, complex, UUID, timedelta, date})
_JSON_TYPES = (dict, list, str, int, float, bool, type(None))
_MISSING: Any = object()

Path = str | tuple[Any, ...]
"""The position of a value.

It is a name, or its parent's path with a key, or with a field name and ``field``.
"""


def difference(given: Any, read: Any, path: str) -> str | None:
    """Return how `read` differs from `given`, and what to do; None if they are the same.

    `path` names `given`. These count as the same: an int that is read as the equal float (``float``
    accepts both); a subclass of datetime, date or time that is read as its base; an aware time that
    is read with the same offset; a dict with another order of entries.
    """
    try:
        return _difference(given, read, path)
    except RecursionError:
        return f"{path} is nested too deeply: pass a flatter value"
    except Exception as error:
        # Raised by an `__eq__` or a property of the caller.
        return f"{path} ({type(given).__name__}) cannot be compared with what would be read: {type(error).__name__}: {error}"


def shorten(value: object) -> str:
    """Return the value's repr, cut to 100 characters."""
    try:
        text = repr(value)
    except Exception:  # a user's repr that raises must not hide the fault that is reported
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else text[:97] + "…"


def _difference(given: Any, read: Any, path: Path) -> str | None:  # noqa: PLR0912  # one a kind of value
    if given is read:
        return None
    kind = type(given)
    if kind is not type(read):
        if kind is int and type(read) is float and given == read:
            return None
        if not any(isinstance(given, base) and type(read) is base for base in (datetime, date, time)):
            return _changed(given, read, path)
    if kind in _SCALARS:
        return None if given == read else _changed(given, read, path)
    if kind is float:
        same = (given == read and math.copysign(1, given) == math.copysign(1, read)) or (
            math.isnan(given) and math.isnan(read)
        )
        return None if same else _changed(given, read, path)
    if isinstance(given, (datetime, time)):
        return _moments(given, read, path)
    if isinstance(given, date):
        return None if given == read else _changed(given, read, path)
    if kind is Decimal:
        return None if given.as_tuple() == read.as_tuple() else _changed(given, read, path)
    if isinstance(given, dict):
        return _mappings(given, read, path)
    if isinstance(given, (list, tuple, deque)):
        return _sequences(given, read, path)
    if isinstance(given, (set, frozenset)):
        return _sets(given, read, path)
    if isinstance(given, BaseModel):
        return _models(given, read, path)
    if dataclasses.is_dataclass(kind):
        return _attributes(given, read, path, [field.name for field in dataclasses.fields(kind)])
    equality: Any = kind.__eq__
    if equality is object.__eq__ and hasattr(given, "__dict__"):
        return _attributes(given, read, path, [*vars(given), *(name for name in vars(read) if name not in vars(given))])
    return None if given == read else _changed(given, read, path)


def _at(path: Path) -> str:
    """Return a path as text. This is slow, and done only for a fault."""
    if isinstance(path, str):
        return path
    parent, key, *kind = path
    if not kind:
        return f"{_at(parent)}[{shorten(key)}]"
    return f"{_at(parent)}.{key}" if kind == ["field"] else f"{_at(parent)}, its {key}"


def _moments(given: Any, read: Any, path: Path) -> str | None:
    offset = given.utcoffset()
    if given.replace(tzinfo=None, fold=0) == read.replace(tzinfo=None, fold=0) and offset == read.utcoffset():
        if given.tzinfo is None or read.tzinfo is not None:
            return None
        return f"{_at(path)}={shorten(given)}: its time zone has no offset without a date: pass a datetime, or no zone"
    if offset is not None and offset % timedelta(minutes=1):
        return (
            f"{_at(path)}={shorten(given)} has an offset of {offset}, and seconds of an offset cannot be stored: "
            "convert it with .astimezone(timezone.utc)"
        )
    return _changed(given, read, path)


def _mappings(given: dict[Any, Any], read: dict[Any, Any], path: Path) -> str | None:
    if isinstance(given, defaultdict) and given.default_factory is not getattr(read, "default_factory", None):
        return f"{_at(path)}: the default_factory of a defaultdict is not stored: pass a dict"
    keys = {key: key for key in read}
    for key, value in given.items():
        if key not in keys:
            return _lost_key(given, key, path)
        if _difference(key, keys[key], path) is not None:
            return f"{_at(path)} has the key {shorten(key)} ({type(key).__name__}), which would be read as {shorten(keys[key])}"
        if (found := _difference(value, read[key], (path, key))) is not None:
            return found
    if len(given) != len(read):
        extra = next(key for key in read if key not in given)
        return f"{_at(path)} has no key {shorten(extra)}, and would be read with one"
    if isinstance(given, OrderedDict) and not _in_stored_order(given):
        return f"{_at(path)}: the order of an OrderedDict's keys is not stored: pass a list of pairs"
    return None


def _lost_key(given: Mapping[Any, Any], key: Any, path: Path) -> str:
    kinds = {type(other).__name__ for other in given}
    mixed = "; it has keys of several types, and two of them have the same text" if len(kinds) > 1 else ""
    hint = "" if isinstance(key, str) else ": annotate the type of its keys, or pass text as keys"
    return f"{_at(path)} has the key {shorten(key)} ({type(key).__name__}), which would not be read again{mixed}{hint}"


def _in_stored_order(given: Mapping[Any, Any]) -> bool:
    """Whether the keys are in the order in which PostgreSQL stores an object's keys."""
    if len(given) < 2:
        return True
    if not all(isinstance(key, str) for key in given):
        return False
    names = [key.encode("utf-8", "surrogatepass") for key in given]
    return names == sorted(names, key=lambda name: (len(name), name))


def _sequences(given: Any, read: Any, path: Path) -> str | None:
    if isinstance(given, deque) and given.maxlen != read.maxlen:
        return f"{_at(path)}: the maxlen of a deque is not stored: pass a list"
    if len(given) != len(read):
        return _changed(given, read, path)
    names: Iterable[str] = getattr(type(given), "_fields", ()) if isinstance(given, tuple) else ()
    for index, (one, other, name) in enumerate(zip_longest(given, read, names)):
        if (found := _difference(one, other, (path, index) if name is None else (path, name, "field"))) is not None:
            return found
    return None


def _sets(given: Any, read: Any, path: Path) -> str | None:
    items = {item: item for item in read}
    for item in given:
        if item not in items:
            return _changed(item, _MISSING, (path, "item", "of"))
        if (found := _difference(item, items[item], (path, "item", "of"))) is not None:
            return found
    return None if len(given) == len(read) else _changed(given, read, path)


def _models(given: BaseModel, read: BaseModel, path: Path) -> str | None:
    names = list(type(given).__pydantic_fields__)
    unset = [name for name in names if name not in vars(given)]
    if unset:
        return f"{_at(path)}.{unset[0]} has no value: load it, or set it, before the call"
    if (found := _attributes(given, read, path, names)) is not None:
        return found
    extra, read_extra = given.__pydantic_extra__ or {}, read.__pydantic_extra__ or {}
    if (found := _difference(extra, read_extra, path)) is not None:
        return found
    private, read_private = given.__pydantic_private__ or {}, read.__pydantic_private__ or {}
    for name in [*private, *(name for name in read_private if name not in private)]:
        one, other = private.get(name, _MISSING), read_private.get(name, _MISSING)
        if one is _MISSING or other is _MISSING or _difference(one, other, path) is not None:
            return f"{_at(path)}.{name} is a private attribute, which is not stored: make it a field, or leave it as it begins"
    return None


def _attributes(given: Any, read: Any, path: Path, names: Iterable[str]) -> str | None:
    for name in names:
        one, other = getattr(given, name, _MISSING), getattr(read, name, _MISSING)
        if (found := _difference(one, other, (path, name, "field"))) is not None:
            return found
    return None


def _changed(given: Any, read: Any, path: Path) -> str:
    kind = type(given).__name__
    if read is _MISSING:
        return f"{_at(path)}={shorten(given)} ({kind}) would not be read again: use a type that JSON returns unchanged"
    if given is _MISSING:
        return f"{_at(path)} is not there, and would be read as {shorten(read)}"
    if type(given) is type(read):
        return (
            f"{_at(path)}={shorten(given)} ({kind}) would be read as {shorten(read)}: a validator or a serializer changes it, "
            "or it was changed after it was checked; make them leave alone what they have made"
        )
    if isinstance(given, type(read)) and not isinstance(read, _JSON_TYPES):
        advice = f"annotate {kind}, or a union of the types that it may have"
    elif isinstance(read, _JSON_TYPES) and not isinstance(given, _JSON_TYPES):
        advice = f"annotate {kind} (not Any, nor a union with text), or pass it as JSON has it"
    else:
        advice = f"annotate the one type that it has, or pass {type(read).__name__}"
    return f"{_at(path)}={shorten(given)} ({kind}) would be read as {shorten(read)} ({type(read).__name__}): {advice}"
