"""Types whose values do not come back from JSON: they are refused when a task is defined."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections import abc
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any

from pydantic import BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr, WrapSerializer
from pydantic.fields import FieldInfo
from typing_extensions import is_typeddict

from jobq._core.hints import UNIONS

_SECRETS = (SecretStr, SecretBytes, Secret)
_READ_ONCE = frozenset({abc.Iterator, abc.Generator})
_SERIALIZERS = (PlainSerializer, WrapSerializer)


def refusal(hint: Any, path: str) -> str | None:
    """Return why values of this type do not come back from JSON, and what to do.

    None: this is not known in advance.
    """
    return next(_Walk().faults(hint, path), None)


class _Field(typing.NamedTuple):
    name: str
    hint: Any
    info: FieldInfo | None = None
    own: bool = False
    """Whether a serializer of its class writes it."""


class _Walk:
    """One walk through a type and its parts."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._nested = 0
        """Nesting depth in models and the like.

        Their values are created before the call, so abstract types in them are not converted to
        lists.
        """

    def faults(self, hint: Any, path: str) -> Iterator[str]:
        """Yield the problems of `hint`, in order."""
        origin, args = typing.get_origin(hint) or hint, typing.get_args(hint)
        if origin is Annotated:
            inner, *metadata = args
            if any(isinstance(data, FieldInfo) and data.exclude for data in metadata):
                yield _excluded(path)
            if not any(isinstance(data, _SERIALIZERS) for data in metadata):
                yield from self.faults(inner, path)
            return
        if origin in (typing.Final, typing.ClassVar):
            yield f"{path}: {str(origin).removeprefix('typing.')} is for variables, not for values: leave it out"
            return
        if origin is typing.Literal:
            return
        if origin in UNIONS:
            yield from _alike(args, path)
        if isinstance(origin, type):
            yield from self._of_class(origin, path)
        # A NewType, a type alias.
        for name in ("__supertype__", "__value__"):
            if hasattr(hint, name) and id(hint) not in self._seen:
                self._seen.add(id(hint))
                args = (*args, getattr(hint, name))
        for part in args:
            if part is not ...:
                yield from self.faults(part, path)

    def _of_class(self, kind: type, path: str) -> Iterator[str]:
        if issubclass(kind, _SECRETS):
            yield (
                f"{path}: {kind.__name__} is stored as asterisks, and arguments and results can be read in the "
                "database: keep the secret elsewhere and pass its name or id, or add to its field a serializer that writes it"
            )
        elif kind in _READ_ONCE or (self._nested and kind is abc.Iterable):
            yield f"{path}: {kind.__name__} can be read only once: annotate list"
        elif _is_old_model(kind):
            yield f"{path}: {kind.__name__} is a model of pydantic's version 1: derive it from BaseModel of version 2"
        elif id(kind) not in self._seen:
            self._seen.add(id(kind))
            self._nested += 1
            for field in _fields(kind):
                place = f"{path}.{field.name}"
                if field.info is not None and field.info.exclude:
                    yield _excluded(place)
                elif not field.own and not any(
                    isinstance(data, _SERIALIZERS) for data in (field.info.metadata if field.info is not None else ())
                ):
                    yield from self.faults(field.hint, place)
            self._nested -= 1


def _excluded(path: str) -> str:
    return f"{path} has exclude=True, so it would not be stored: leave that out, or pass a model without the field"


def _alike(parts: tuple[Any, ...], path: str) -> Iterator[str]:
    """Yield the types of a union that JSON cannot distinguish, whatever the value."""
    for one, other in combinations(parts, 2):
        if {one, other} == {str, bytes}:
            yield f"{path}: bytes are stored as text (base64), so {_name(one)} | {_name(other)} has one form: take one of them"
        elif isinstance(one, type) and isinstance(other, type) and one is not other:
            form = _form(one)
            if form is not None and form == _form(other):
                yield (
                    f"{path}: {_name(one)} and {_name(other)} have the same fields, so their JSON does not tell which one "
                    "it is: add a field to each, such as kind: Literal[…]"
                )


def _form(kind: type) -> list[tuple[str, str]] | None:
    """Return the names and types of the fields of a record; None for other types."""
    if issubclass(kind, tuple) and not hasattr(kind, "_fields"):
        return None
    # A named tuple is stored as a list, the others as objects.
    form = [(field.name, repr(field.hint)) for field in _fields(kind)]
    return None if not form else [("", "list"), *form] if issubclass(kind, tuple) else sorted(form)


def _fields(kind: type) -> list[_Field]:
    """Return the fields of a model, dataclass, named tuple or typed dict; none for other types."""
    if issubclass(kind, BaseModel) or hasattr(kind, "__pydantic_fields__"):
        infos: dict[str, FieldInfo] = getattr(kind, "__pydantic_fields__", {})
        decorators = getattr(kind, "__pydantic_decorators__", None)
        written = {
            name for found in getattr(decorators, "field_serializers", {}).values() for name in found.info.fields
        }
        whole = bool(getattr(decorators, "model_serializers", {})) or "*" in written
        return [_Field(name, info.annotation, info, whole or name in written) for name, info in infos.items()]
    if not (dataclasses.is_dataclass(kind) or is_typeddict(kind) or hasattr(kind, "_fields")):
        return []
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # undefined names, and any other error that an annotation may cause
        return []
    names = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else list(hints)
    return [_Field(name, hints[name]) for name in names if name in hints]


def _is_old_model(kind: type) -> bool:
    old = sys.modules.get("pydantic.v1")
    return old is not None and issubclass(kind, old.BaseModel)


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
