"""Named and typed values: checked, written as JSON, and read again as a worker will read them."""

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

from jobq._core import json_text
from jobq._core.hints import UNIONS, concrete
from jobq._core.round_trip import difference, shorten

_CONFIG = ConfigDict(extra="forbid", val_json_bytes="base64", ser_json_bytes="base64")

# Below the limit of Python for one number: 4,300 digits.
_SHORT = 4096
# What pydantic writes in a key instead of a lone surrogate.
_REPLACEMENT = "\ufffd".encode()
_MOMENTS: frozenset[Any] = frozenset({datetime, time})
_PLAIN: frozenset[Any] = frozenset({bool, int, float, str, bytes, NoneType, Decimal, UUID, date, timedelta}) | _MOMENTS
_PLAIN_CONTAINERS = (list, tuple, set, frozenset, dict, *UNIONS)


class Fields:
    """Named values; each has a type and is required or not. Raises pydantic's errors for a type."""

    def __init__(self, hints: Mapping[str, tuple[Any, bool]]) -> None:
        types = [hint for hint, _ in hints.values()]
        concretes = {name: (concrete(hint), required) for name, (hint, required) in hints.items()}
        fields = {name: hint if required else NotRequired[hint] for name, (hint, required) in concretes.items()}
        # The names are known only at run time, so a type checker cannot check them.
        make: Any = TypedDict
        shape = make("shape", fields)
        shape.__pydantic_config__ = _CONFIG
        self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
        self._validator = self._adapter.validator
        self._plain = all(_is_plain(hint) for hint in types)
        self._lossless = all(_is_lossless(_without_none(hint), moments=True) for hint in types)
        """Whether JSON preserves all values, except times with unusual time zones."""
        self._moments = tuple(name for name, (hint, _) in hints.items() if _without_none(hint) in _MOMENTS)
        direct = {name: _without_none(hint) for name, (hint, _) in hints.items()}
        self._floats = tuple(name for name, hint in direct.items() if hint is float)
        self._strings = tuple(name for name, hint in direct.items() if hint is str)
        within = [hint for hint in direct.values() if hint not in (float, str)]
        self._any_floats = any(_mentions(hint, float) for hint in types)
        """Whether integers and Decimals may be accepted as floats, which may have another value."""
        self._inner_floats = any(_mentions(hint, float) for hint in within)
        self._inner_strings = any(_mentions(hint, str) for hint in within)
        self._keys = any(_mentions(hint, dict) for hint in types)
        # The adapter's own serialiser does not pass its configuration to untyped values: it would
        # write NaN as null.
        self._serializer = SchemaSerializer(
            _without_made(self._adapter.core_schema), {"ser_json_inf_nan": "constants", "ser_json_bytes": "base64"}
        )

    @property
    def schema(self) -> str:
        """The parts of the types, as text.

        It is '' for plain types, which their names describe, and for types without a JSON schema.
        """
        if self._plain:
            return ""
        try:
            return json.dumps(_without_texts(self._adapter.json_schema()), sort_keys=True, default=str)
        except Exception:  # a type may make its own schema
            return ""

    def validate(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the checked `values`; they are converted only to base classes and floats.

        Raises ValidationError.
        """
        # The adapter's own method checks nine options before it does the same.
        if self._plain:
            checked: dict[str, Any] = self._validator.validate_python(values, strict=True)
        else:
            # The annotation of a parameter may have an alias.
            checked = self._validator.validate_python(values, strict=True, by_name=True)
        return checked

    def parse(self, raw: bytes | str) -> dict[str, Any]:
        """Return values from JSON text. Raises ValidationError."""
        # jobq writes by name; other producers may write by alias.
        parsed: dict[str, Any] = self._validator.validate_json(raw, by_name=True)
        return parsed

    def rounded(self, given: Mapping[str, Any], checked: Mapping[str, Any]) -> str | None:
        """Return which number in `given` changes as a float, and what to do.

        The result is None if no number does.
        """
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
        """Return `values` as JSON text in one step, or None if they need a closer check.

        `values` are the checked `given`. A closer check is needed for types that may not come back
        unchanged, for numbers that may be rounded, for text long enough to hold a number that is
        too long to be read back, and for characters that PostgreSQL may not store. Checking a value
        costs less than searching the text.
        """
        if not self._lossless:
            return None
        for name in self._moments:
            moment = values.get(name)
            if moment is not None and moment.tzinfo is not None and moment.tzinfo is not UTC:
                return None
        for name in self._floats:
            number = values.get(name)
            # Not NaN, not infinite, not rounded, and not -0.0, which PostgreSQL stores as 0.0.
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
        """Return checked `values` as JSON text that reads back unchanged.

        Each may have at most `limit` bytes.

        Raises ValueError if there is none; its message starts with `what` and the value's name.
        """
        try:
            plain = self._dump_plain(values)
        except Exception as error:  # a serializer may belong to the caller
            raise ValueError(self._unwritable(values, what) or f"{what}arguments: {plain_text(error)}") from None
        parts = [f"{json.dumps(name)}:{json_text.encode(plain[name], f'{what}{name}', limit)}" for name in plain]
        text = f"{{{','.join(parts)}}}"
        if not self._lossless or self._moments or _REPLACEMENT in text.encode():
            self._check(values, text, what)
        return text

    def _dump_plain(self, values: Mapping[str, Any]) -> dict[str, Any]:
        # By name, because a value with an alias would not be found again. As a round trip, so
        # without computed fields.
        plain: dict[str, Any] = self._serializer.to_python(
            values, mode="json", by_alias=False, round_trip=True, warnings="error"
        )
        return plain

    def _unwritable(self, values: Mapping[str, Any], what: str) -> str | None:
        """Return why the first value without a JSON form has none; None if each value has one."""
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
        """Raise ValueError unless reading `text` gives `values`."""
        try:
            read = self.parse(text)
        except ValidationError as error:
            if any(fault["type"] == "json_invalid" for fault in error.errors(include_url=False, include_input=False)):
                # It is valid JSON, but the reader has a limit.
                raise ValueError(f"{what}{next(iter(values))} is nested too deeply: pass a flatter value") from None
            raise ValueError(
                f"{what}{explain(error)}; the value was accepted, and its JSON is not: a serializer writes what its type does "
                "not read, or the value was changed after it was checked"
            ) from None
        except Exception as error:  # raised by a validator
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
    """Return the error's text in one line, without pydantic's link to its documentation."""
    return " ".join(str(error).split("\n\nFor further information", maxsplit=1)[0].split())


def _without_made(schema: Any) -> Any:
    """Return a core schema without the dataclass fields that ``__init__`` does not take.

    ``__init__`` computes these fields again.
    """
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
    """Whether every value of this type comes back from JSON unchanged.

    `moments`: ignore datetime and time.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in UNIONS:
        parts = {part for part in args if part is not NoneType}
        if len(parts) == 1:
            return _is_lossless(*parts)
        # Each type has its own JSON form, unless there are two kinds of numbers.
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
    """Return `schema` without descriptions and defaults: a set's order varies between processes.

    `names`: the keys are names.
    """
    if isinstance(schema, dict):
        return {
            name: _without_texts(part, names=not names and name in ("properties", "$defs"))
            for name, part in schema.items()
            if names or name not in ("default", "description")
        }
    return [_without_texts(part) for part in schema] if isinstance(schema, list) else schema
