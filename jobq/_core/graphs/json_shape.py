"""What annotated types look like as JSON: their fields, and the type behind an annotation."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args, get_origin

import typing_extensions
from pydantic import BaseModel, RootModel
from pydantic.fields import FieldInfo

_QUALIFIERS = (
    typing.Required,
    typing.NotRequired,
    typing.Final,
    ClassVar,
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
)
# Constraints only refuse values. Other metadata may convert them: a validator, a serializer.
_CONSTRAINTS = ("annotated_types", "jobq._core.injection")


class TypeFields(NamedTuple):
    """The fields of a type, as jobq stores them: by name, not by alias, and without computed fields."""

    types: Mapping[str, Any]
    open: bool = False
    """Whether values may have other fields."""
    as_list: bool = False
    """Whether JSON has them as a list, in their order."""
    known_form: bool = True
    """Whether it reads and writes the JSON that its fields suggest."""

    def key(self, name: str) -> str | int:
        """Return the key in JSON."""
        return list(self.types).index(name) if self.as_list else name


def plain(hint: Any) -> Any:
    """Return the type behind an annotation; Any if its values may be written or read in another way."""
    while True:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            if not all(_is_constraint(each) for each in arguments[1:]):
                return Any
            hint = arguments[0]
        elif origin in _QUALIFIERS and arguments:
            hint = arguments[0]
        elif origin is Literal:
            kinds = {type(each) for each in arguments}
            return kinds.pop() if len(kinds) == 1 else Any
        elif (supertype := getattr(hint, "__supertype__", None)) is not None:  # a NewType
            hint = supertype
        elif type(hint).__name__ == "TypeAliasType" or type(origin).__name__ == "TypeAliasType":
            # A generic alias needs its arguments put into its value.
            return plain(hint.__value__) if origin is None else Any
        elif hint is None:
            return type(None)
        else:
            return hint


def _is_constraint(metadata: Any) -> bool:
    if isinstance(metadata, FieldInfo):
        return all(map(_is_constraint, metadata.metadata))
    return isinstance(metadata, str) or type(metadata).__module__.startswith(_CONSTRAINTS)


@functools.lru_cache(maxsize=1024)
def _fields_of(kind: type) -> TypeFields | None:
    if issubclass(kind, RootModel):
        return None
    if issubclass(kind, BaseModel):
        return _model_fields(kind)
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = typing.get_type_hints(kind, include_extras=True)
        return TypeFields({each: hints.get(each, Any) for each in kind._fields}, as_list=True)
    if typing_extensions.is_typeddict(kind):
        return TypeFields(typing_extensions.get_type_hints(kind, include_extras=True))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind, include_extras=True)
        is_standard = not hasattr(kind, "__pydantic_decorators__") and not hasattr(kind, "__get_pydantic_core_schema__")
        return TypeFields(
            {each.name: hints[each.name] for each in dataclasses.fields(kind)},
            open=not is_standard,
            known_form=is_standard,
        )
    return None


def _model_fields(kind: type[BaseModel]) -> TypeFields:
    decorators = kind.__pydantic_decorators__
    # A field's serializer, or metadata other than constraints, may write something else.
    converted = {each for one in decorators.field_serializers.values() for each in one.info.fields}
    types: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        is_plain = name not in converted and "*" not in converted and all(map(_is_constraint, field.metadata))
        types[name] = field.annotation if is_plain else Any
    own = any("__get_pydantic_core_schema__" in vars(each) for each in kind.__mro__ if each not in BaseModel.__mro__)
    known = not (own or decorators.model_validators or decorators.model_serializers)
    return TypeFields(types, open=not known or kind.model_config.get("extra") == "allow", known_form=known)


def fields_of(kind: Any) -> TypeFields | None:
    """Return the fields of a model, dataclass, TypedDict or named tuple; None for another type."""
    if not isinstance(kind, type):
        return None
    try:
        return _fields_of(kind)
    except Exception:  # names that cannot be resolved here
        return None
