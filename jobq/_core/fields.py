"""Values by name, each of a type: checked, written as JSON, and read again as a worker will read them."""

from __future__ import annotations

import json
import math
import typing
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any, NotRequired
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaSerializer
from typing_extensions import TypedDict

from jobq import jsontext
from jobq.hints import UNIONS, concrete
from jobq.sameness import difference, shorten

_CONFIG = ConfigDict(extra="forbid", val_json_bytes="base64", ser_json_bytes="base64")

# Below what Python reads of one number: 4,300 digits.
_SHORT = 4096
# What pydantic writes in the place of a lone surrogate, in a key.
_REPLACEMENT = "\ufffd".encode()
_MOMENTS: frozenset[Any] = frozenset({datetime, time})
_PLAIN: frozenset[Any] = frozenset({bool, int, float, str, bytes, NoneType, Decimal, UUID, date, timedelta}) | _MOMENTS
_PLAIN_CONTAINERS = (list, tuple, set, frozenset, dict, *UNIONS)


class Fields:
    """Values by name, of which each has a type and is required or not. Raises what pydantic raises for a type."""

    def __init__(self, hints: Mapping[str, tuple[Any, bool]]) -> None:
        types = [hint for hint, _ in hints.values()]
        concretes = {name: (concrete(hint), required) for name, (hint, required) in hints.items()}
        fields = {name: hint if required else NotRequired[hint] for name, (hint, required) in concretes.items()}
        # Names that only the caller knows: nothing for a checker to see here.
        make: Any = TypedDict
        shape = make("shape", fields)
        shape.__pydantic_config__ = _CONFIG
        self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
        self._validator = self._adapter.validator
        self._plain = all(_is_plain(hint) for hint in types)
        self._lossless = all(_is_lossless(_without_none(hint), moments=True) for hint in types)
        """Whether all values come back from JSON as they are, but for moments with odd time zones."""
        self._moments = tuple(name for name, (hint, _) in hints.items() if _without_none(hint) in _MOMENTS)
        direct = {name: _without_none(hint) for name, (hint, _) in hints.items()}
        self._floats = tuple(name for name, hint in direct.items() if hint is float)
        self._strings = tuple(name for name, hint in direct.items() if hint is str)
        within = [hint for hint in direct.values() if hint not in (float, str)]
        self._any_floats = any(_mentions(hint, float) for hint in types)
        """Whether whole numbers and Decimals may be taken for floats, which may be other numbers."""
        self._inner_floats = any(_mentions(hint, float) for hint in within)
        self._inner_strings = any(_mentions(hint, str) for hint in within)
        self._keys = any(_mentions(hint, dict) for hint in types)
        # The adapter's own serialiser does not hand its configuration down to untyped values: it would write NaN as null.
        self._serializer = SchemaSerializer(
            _without_made(self._adapter.core_schema), {"ser_json_inf_nan": "constants", "ser_json_bytes": "base64"}
        )

    @property
    def schema(self) -> str:
        """What the types consist of, as text; '' for plain ones, whose names say it, and for those without a JSON schema."""
        if self._plain:
            return ""
        try:
            return json.dumps(_without_texts(self._adapter.json_schema()), sort_keys=True, default=str)
        except Exception:  # a type may make its schema itself
            return ""

    def validate(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return `values` checked: nothing is converted but to base classes and floats. Raises ValidationError."""
        # The adapter's own method looks at nine options of its own before it does the same.
        if self._plain:
            checked: dict[str, Any] = self._validator.validate_python(values, strict=True)
        else:
            # A parameter's annotation may have an alias.
            checked = self._validator.validate_python(values, strict=True, by_name=True)
        return checked

    def parse(self, raw: bytes | str) -> dict[str, Any]:
        """Return values from JSON text. Raises ValidationError."""
        # By name, as they are written; and by alias, as others may write them.
        parsed: dict[str, Any] = self._validator.validate_json(raw, by_name=True)
        return parsed

    def rounded(self, given: Mapping[str, Any], checked: Mapping[str, Any]) -> str | None:
        """Return which number of `given` is another one as a float, and what to do; None when none is."""
        if not self._any_floats or (self._plain and given == checked):
            return None
        for name, value in given.items():
            if value is not checked[name] and (self._plain or type(checked[name]) is float) and value != checked[name]:
                return (
                    f"{name}={shorten(value)} would be rounded to {shorten(checked[name])}: pass a float, or annotate a type "
                    "that holds all its digits"
                )
        return None

    def dump_short(self, given: Mapping[str, Any], values: Mapping[str, Any], limit: int) -> str | None:
        """Return `values`, which are `given` checked, as JSON text in one step, or None when that needs a closer look.

        That is: for types that may not come back as they are; for numbers that may be rounded; for text so long that a number
        in it could be too long to be read back; and for what PostgreSQL may not store. To look at a value costs less than to
        search the text.
        """
        if not self._lossless:
            return None
        for name in self._moments:
            moment = values.get(name)
            if moment is not None and moment.tzinfo is not None and moment.tzinfo is not UTC:
                return None
        for name in self._floats:
            number = values.get(name)
            # Not NaN, not infinite, not -0.0, which PostgreSQL stores as 0.0; and not rounded.
            if number is not None and (
                number - number or number != given[name] or (not number and math.copysign(1.0, number) < 0)
            ):
                return None
        for name in self._strings:
            text = values.get(name)
            if text is not None and "\0" in text:
                return None
        try:
            raw = self._serializer.to_json(values, warnings="error")
        except (PydanticSerializationError, ValueError, RecursionError):
            return None
        if len(raw) > min(_SHORT, limit):
            return None
        if self._inner_floats and (given != values or b"NaN" in raw or b"Infinity" in raw or b"-0.0" in raw):
            return None
        if self._inner_strings and (b"\\u0000" in raw or (self._keys and _REPLACEMENT in raw)):
            return None
        return raw.decode()

    def dump(self, values: Mapping[str, Any], what: str, limit: int) -> str:
        """Return checked `values` as JSON text that is read as they are; each of at most `limit` bytes.

        Raises ValueError, its message starting with `what` and the name of the value, when there is none.
        """
        try:
            plain = self._dump_plain(values)
        except Exception as error:  # a serializer may be the caller's
            raise ValueError(self._unwritable(values, what) or f"{what}arguments: {plain_text(error)}") from None
        parts = [f"{json.dumps(name)}:{jsontext.encode(plain[name], f'{what}{name}', limit)}" for name in plain]
        text = f"{{{','.join(parts)}}}"
        if not self._lossless or self._moments or _REPLACEMENT in text.encode():
            self._check(values, text, what)
        return text

    def _dump_plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        # By name, or what has an alias would not be found again. A round trip: without what is computed from the rest.
        plain: dict[str, Any] = self._serializer.to_python(
            values, mode="json", by_alias=False, round_trip=True, warnings="error"
        )
        return plain

    def _unwritable(self, values: Mapping[str, Any], what: str) -> str | None:
        """Return what is wrong with the first value that has no form in JSON, or None when each has."""
        for name, value in values.items():
            try:
                self._dump_plain({name: value})
            except Exception as error:
                advice = (
                    "; in the model_config, set ser_json_bytes and val_json_bytes to 'base64'"
                    if isinstance(error, UnicodeDecodeError)
                    else ""
                )
                return f"{what}{name}={shorten(value)} cannot be stored as JSON: {plain_text(error)}{advice}"
        return None

    def _check(self, values: Mapping[str, Any], text: str, what: str) -> None:
        """Raise ValueError unless `text` is read as `values`."""
        try:
            read = self.parse(text)
        except ValidationError as error:
            if any(fault["type"] == "json_invalid" for fault in error.errors(include_url=False, include_input=False)):
                # It is JSON, but what reads it has a limit.
                raise ValueError(f"{what}{next(iter(values))} is nested too deeply: pass a flatter value") from None
            raise ValueError(
                f"{what}{explain(error)}; the value was accepted, and its JSON is not: a serializer writes what its type does "
                "not read, or the value was changed after it was checked"
            ) from None
        except Exception as error:  # a validator's own
            raise ValueError(
                f"{what}to read {', '.join(values)} again raises {type(error).__name__}: {error}; a validator must take what "
                "it has made"
            ) from None
        for name, value in values.items():
            if (found := difference(value, read[name], name)) is not None:
                raise ValueError(f"{what}{found}")


def explain(error: ValidationError) -> str:
    """Return what does not fit, and where, in one line."""
    faults = []
    for fault in error.errors(include_url=False, include_context=False):
        name, *rest = fault["loc"] or ("the whole",)
        path = f"{name}{''.join(f'[{part!r}]' for part in rest)}"
        match fault["type"]:
            case "extra_forbidden":
                faults.append(f"there is no parameter {path!r}" if not rest else f"there is no field {path}")
            case "missing" if not rest:
                faults.append(f"{path} is missing")
            case _:
                faults.append(f"{path}={shorten(fault['input'])}: {fault['msg']}")
    return "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")


def plain_text(error: Exception) -> str:
    """Return the error's text in one line, without pydantic's pointer to its documentation."""
    return " ".join(str(error).split("\n\nFor further information", maxsplit=1)[0].split())


def _without_made(schema: Any) -> Any:
    """Return a core schema that leaves out the fields of dataclasses that ``__init__`` does not take: it makes them again."""
    if isinstance(schema, list):
        items = [_without_made(item) for item in schema]
        return items if any(item is not old for item, old in zip(items, schema, strict=True)) else schema
    if not isinstance(schema, dict):
        return schema
    parts = {name: part if name in ("metadata", "default") else _without_made(part) for name, part in schema.items()}
    if schema.get("type") == "dataclass-field" and schema.get("init") is False:
        return {**parts, "serialization_exclude": True}
    return parts if any(part is not schema[name] for name, part in parts.items()) else schema


def _is_plain(hint: Any) -> bool:
    """Whether values of this type have no serialiser and no configuration of their own."""
    if typing.get_origin(hint) in _PLAIN_CONTAINERS:
        return all(part is ... or _is_plain(part) for part in typing.get_args(hint))
    return _is_one_of(hint, _PLAIN)


def _is_lossless(hint: Any, *, moments: bool = False) -> bool:
    """Whether every value of this type is read from its JSON as it was. `moments`: leave datetime and time aside."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        parts = {part for part in args if part is not NoneType}
        if len(parts) == 1:
            return _is_lossless(*parts)
        # Each has a form of its own, so long as there are not two kinds of numbers.
        return parts <= {bool, int, str} or parts <= {bool, float, str}
    if origin is dict:
        key, value = args
        return _is_one_of(key, _PLAIN - _MOMENTS - {NoneType}) and _is_lossless(value)
    if origin in (list, tuple, set, frozenset):
        return all(part is ... or _is_lossless(part) for part in args)
    return _is_one_of(hint, _PLAIN if moments else _PLAIN - _MOMENTS)


def _without_none(hint: Any) -> Any:
    args = typing.get_args(hint)
    if typing.get_origin(hint) in UNIONS and len(args) == 2 and NoneType in args:
        return args[0] if args[1] is NoneType else args[1]
    return hint


def _mentions(hint: Any, kind: type) -> bool:
    return (
        hint is kind or typing.get_origin(hint) is kind or any(_mentions(part, kind) for part in typing.get_args(hint))
    )


def _is_one_of(hint: Any, kinds: frozenset[Any]) -> bool:
    try:
        return hint in kinds
    except TypeError:  # not hashable
        return False


def _without_texts(schema: Any, *, names: bool = False) -> Any:
    """Return `schema` without descriptions and defaults: a set's order differs between processes. `names`: keys are names."""
    if isinstance(schema, dict):
        return {
            name: _without_texts(part, names=not names and name in ("properties", "$defs"))
            for name, part in schema.items()
            if names or name not in ("default", "description")
        }
    return [_without_texts(part) for part in schema] if isinstance(schema, list) else schema
