"""A function's signature as a contract: arguments to JSON at the call, JSON to arguments at the run, results likewise.

Arguments are stored by parameter name, and only those that were given: defaults are the function's own at the run.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, NotRequired
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic_core import PydanticSerializationError, SchemaSerializer
from typing_extensions import TypedDict

from jobq import jsontext
from jobq.errors import InvalidArguments, ResultError, TaskDefinitionError

_CONFIG = ConfigDict(extra="forbid", val_json_bytes="base64", ser_json_bytes="base64")
_RESULT = "result"
_NOTHING = b"null"

# Below what Python reads of one number: 4,300 digits.
_SHORT = 4096
_PLAIN = {bool, int, float, str, bytes, NoneType, Decimal, UUID, date, time, datetime, timedelta}
_PLAIN_CONTAINERS = {list, tuple, set, frozenset, dict, typing.Union, UnionType}


class Arguments:
    """What one function takes and returns. Raises TaskDefinitionError for a signature that cannot be stored by name.

    `local_names` are names that only the function's surroundings know, for annotations that are text. An annotation
    that cannot be resolved yet is tried again at the first call: it may be defined further down in the module.
    """

    def __init__(self, task: str, function: Callable[..., Any], local_names: Mapping[str, Any] | None = None) -> None:
        self._task = task
        self._function = function
        self._local_names = local_names
        self._signature = _signature(task, function)
        self._needed = any(p.default is p.empty for p in self._signature.parameters.values())
        self._positional = [p.name for p in self._signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        try:
            _ = self._parameters, self._returned
        except TaskDefinitionError as error:
            if not isinstance(error.__cause__, (NameError, PydanticUndefinedAnnotation)):
                raise
        else:
            self._local_names = None

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int) -> str:
        """Bind, check and serialise the arguments of a call: a JSON object by parameter name.

        Raises InvalidArguments naming the parameter.
        """
        parameters = self._parameters
        given = dict(zip(self._positional, args, strict=False))
        count = len(given)
        given.update(kwargs)
        # The types tell of missing and unknown names; of too many or double ones, only the signature.
        if (count < len(args) or len(given) < count + len(kwargs)) and (misfit := self._misfit(args, kwargs)):
            raise InvalidArguments(misfit)
        try:
            checked = parameters.validate(given)
        except ValidationError as error:
            raise InvalidArguments(self._misfit(args, kwargs) or f"{self._task}: {_explain(error)}") from None
        if (text := parameters.dump_short(checked, limit)) is not None:
            return text
        what = f"{self._task}: arguments"
        try:
            return jsontext.encode(parameters.dump(checked, what), what, limit)
        except ValueError as error:
            raise InvalidArguments(self._unstorable(parameters, checked, limit) or str(error)) from None

    def decode(self, raw: bytes | str) -> dict[str, Any]:
        """Return stored arguments as keyword arguments of the function. Raises InvalidArguments naming the parameter."""
        if raw == b"{}" and not self._needed:
            return {}
        try:
            return self._parameters.parse(raw)
        except ValidationError as error:
            refused = InvalidArguments(f"{self._task}: stored arguments do not fit: {_explain(error)}")
            # Missing and unknown ones, not what is missing within a value.
            of_names = any(
                fault["type"] in ("missing", "extra_forbidden") and len(fault["loc"]) == 1
                for fault in error.errors(include_url=False, include_context=False, include_input=False)
            )
            refused.stored = "parameters" if of_names else "values"
            raise refused from None

    def encode_result(self, value: Any, limit: int) -> bytes:
        """Return the JSON of what the function returned. Raises ResultError when it cannot be stored."""
        if value is None and self._returns_nothing and limit >= len(_NOTHING):
            return _NOTHING
        what = f"{self._task}: result"
        try:
            checked = self._returned.validate({_RESULT: value})
            plain = self._returned.dump(checked, what)[_RESULT]
            return jsontext.encode(plain, what, limit).encode()
        except ValidationError as error:
            raise ResultError(f"{self._task}: {_explain(error)}; the return annotation says otherwise") from None
        except ValueError as error:
            raise ResultError(str(error)) from None

    def decode_result(self, raw: str) -> Any:
        """Return a stored result as the function's return annotation says. Raises ResultError when it does not fit."""
        try:
            return self._returned.parse(f'{{"{_RESULT}":{raw}}}')[_RESULT]
        except ValidationError as error:
            raise ResultError(f"{self._task}: stored {_explain(error)}") from None

    @cached_property
    def fingerprint(self) -> str:
        """Name the signature: the same in every process, and as far as can be in every version of Python.

        By the parameters' names, kinds and annotations, by which have defaults, and by what the annotated types consist of (an
        enum's members, a model's fields): by all that decides whether stored arguments fit.
        """
        parts = [
            f"{p.kind.name} {p.name}: {_annotation(p.annotation)}{'' if p.default is p.empty else ' = …'}"
            for p in self._signature.parameters.values()
        ]
        parts.append(self._parameters.schema)
        return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]

    @cached_property
    def _parameters(self) -> _Fields:
        hints = {
            p.name: (self._resolve(p.name, p.annotation), p.default is p.empty)
            for p in self._signature.parameters.values()
        }
        return self._build(hints)

    @cached_property
    def _returned(self) -> _Fields:
        return self._build({_RESULT: (self._resolve("return", self._signature.return_annotation), True)})

    @cached_property
    def _returns_nothing(self) -> bool:
        """Whether None is what it may return, with nothing to check or to convert."""
        hint = self._resolve("return", self._signature.return_annotation)
        return hint is Any or hint is type(None)

    def _build(self, hints: Mapping[str, tuple[Any, bool]]) -> _Fields:
        try:
            return _Fields(hints)
        except PydanticUserError as error:
            raise TaskDefinitionError(
                f"{self._task}: an annotation of {', '.join(hints)} is not one that pydantic can check: {_plain(error)}"
            ) from error

    def _resolve(self, name: str, annotation: Any) -> Any:
        if annotation is inspect.Parameter.empty:
            return Any

        def holder() -> None: ...

        holder.__annotations__ = {name: annotation}
        inner = inspect.unwrap(self._function)
        known = {**dict(self._local_names or {}), **_closure(inner)}
        try:
            return typing.get_type_hints(holder, getattr(inner, "__globals__", {}), known, include_extras=True)[name]
        except NameError as error:
            raise TaskDefinitionError(
                f"{self._task}: the annotation {annotation!r} of {name} cannot be resolved ({error}): "
                "import it outside of `if TYPE_CHECKING`"
            ) from error

    def _misfit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Return how a call does not fit the signature, or None when it does, whatever the types."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            return f"{self._task}: {error}; it takes {self._signature}"
        return None

    def _unstorable(self, parameters: _Fields, values: Mapping[str, Any], limit: int) -> str | None:
        """Return what is wrong with the first parameter that cannot be stored, or None if it is the sum of them."""
        for name, value in values.items():
            what = f"{self._task}: {name}"
            try:
                jsontext.encode(parameters.dump({name: value}, what)[name], what, limit)
            except ValueError as error:
                return str(error)
        return None


class _Fields:
    """Values by name, of which each has a type and is required or not."""

    def __init__(self, hints: Mapping[str, tuple[Any, bool]]) -> None:
        fields = {name: hint if required else NotRequired[hint] for name, (hint, required) in hints.items()}
        # Names that only the caller knows: nothing for a checker to see here.
        make: Any = TypedDict
        shape = make("shape", fields)
        shape.__pydantic_config__ = _CONFIG
        self._adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(shape)
        self._plain = all(_is_plain(hint) for hint, _ in hints.values())
        # The adapter's own serialiser does not hand its configuration down to untyped values: it would write NaN as null.
        self._serializer = SchemaSerializer(
            self._adapter.core_schema, {"ser_json_inf_nan": "constants", "ser_json_bytes": "base64"}
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
        # The adapter's own method looks at nine options of its own before it does the same.
        checked: dict[str, Any] = self._adapter.validator.validate_python(values, strict=True)
        return checked

    def parse(self, raw: bytes | str) -> dict[str, Any]:
        return self._adapter.validate_json(raw)

    def dump_short(self, values: Mapping[str, Any], limit: int) -> str | None:
        """Return `values` as JSON text, or None when that needs the closer look of `dump` and `jsontext`.

        That is: not in one step for types that are serialised by rules of their own (a dataclass would write NaN as null);
        for text so long that a number in it could be too long to be read back; and for what PostgreSQL may not store.
        """
        if not self._plain:
            return None
        try:
            raw = self._serializer.to_json(values, warnings="error")
        except (PydanticSerializationError, ValueError, RecursionError):
            return None
        if len(raw) > min(_SHORT, limit) or b"NaN" in raw or b"Infinity" in raw or b"\\u0000" in raw:
            return None
        return raw.decode()

    def dump(self, values: Mapping[str, Any], what: str) -> dict[str, Any]:
        """Return `values` in JSON's own types. Raises ValueError, naming `what`, when they have none."""
        try:
            plain: dict[str, Any] = self._serializer.to_python(values, mode="json", warnings="error")
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            shown = f"={_shorten(next(iter(values.values())))}" if len(values) == 1 else ""
            raise ValueError(f"{what}{shown} cannot be stored as JSON: {_plain(error)}") from None
        return plain


def _is_plain(hint: Any) -> bool:
    """Tell whether values of this type have no serialiser and no configuration of their own."""
    if typing.get_origin(hint) in _PLAIN_CONTAINERS:
        return all(part is ... or _is_plain(part) for part in typing.get_args(hint))
    try:
        return hint in _PLAIN
    except TypeError:  # not hashable
        return False


def _signature(task: str, function: Callable[..., Any]) -> inspect.Signature:
    if not callable(function) or isinstance(function, (type, staticmethod, classmethod)):
        raise TaskDefinitionError(f"{task}: {function!r} is no function: decorate a `def` or `async def`")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{task}: a generator cannot be a task: return a list, or split it into jobs")
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        kind, name = parameter.kind, parameter.name
        if kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            star = "*" if kind is parameter.VAR_POSITIONAL else "**"
            raise TaskDefinitionError(
                f"{task}: {star}{name} has no fixed name to store a value under: take a list or a dict as {name}"
            )
        if kind is parameter.POSITIONAL_ONLY:
            raise TaskDefinitionError(
                f"{task}: {name} is positional-only, and arguments are stored by name: remove the `/`"
            )
    return signature


def _annotation(annotation: Any) -> str:
    """Return an annotation as text, whether it was written as text or not."""
    if annotation is inspect.Parameter.empty:
        return ""
    # Text within text: an annotation in quotes in a module whose annotations are text.
    text = annotation.strip("'\"") if isinstance(annotation, str) else inspect.formatannotation(annotation)
    # Addresses differ from process to process.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def _without_texts(schema: Any, *, names: bool = False) -> Any:
    """Return `schema` without descriptions and defaults: a set's order differs between processes. `names`: keys are names."""
    if isinstance(schema, dict):
        return {
            name: _without_texts(part, names=not names and name in ("properties", "$defs"))
            for name, part in schema.items()
            if names or name not in ("default", "description")
        }
    return [_without_texts(part) for part in schema] if isinstance(schema, list) else schema


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the surrounding function's names that `function` itself uses."""
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    found = {}
    for name, cell in zip(names, getattr(function, "__closure__", None) or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False, include_context=False):
        name, *rest = fault["loc"] or ("the whole",)
        path = f"{name}{''.join(f'[{part!r}]' for part in rest)}"
        match fault["type"]:
            case "extra_forbidden":
                faults.append(f"there is no parameter {path!r}")
            case "missing" if not rest:
                faults.append(f"{path} is missing")
            case _:
                faults.append(f"{path}={_shorten(fault['input'])}: {fault['msg']}")
    return "; ".join(faults[:5]) + (f"; and {len(faults) - 5} more" if len(faults) > 5 else "")


def _shorten(value: object) -> str:
    try:
        text = repr(value)
    except Exception:  # a repr of the user's that raises must not hide the fault that we report
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 100 else text[:97] + "…"


def _plain(error: Exception) -> str:
    return " ".join(str(error).split("\n\nFor further information", maxsplit=1)[0].split())
