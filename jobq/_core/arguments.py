"""A function's signature as a contract: arguments to JSON at the call, JSON to arguments at the run, results likewise.

Arguments are stored by parameter name, and only those that were given: defaults are the function's own at the run.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from pydantic.errors import PydanticUndefinedAnnotation

from jobq import callables, jsontext
from jobq.errors import InvalidArguments, ResultError, TaskDefinitionError
from jobq.fields import Fields, explain, plain_text
from jobq.hintchecks import refusal
from jobq.hints import resolve
from jobq.sameness import shorten

_RESULT = "result"
_HEAD = f'{{"{_RESULT}":'
_NOTHING = b"null"


class Arguments:
    """What one function takes and returns. Raises TaskDefinitionError for a signature that cannot be stored by name.

    `local_names` are names that only the function's surroundings know, for annotations that are text. An annotation
    that cannot be resolved yet is tried again at the first call: it may be defined further down in the module.
    """

    def __init__(self, task: str, function: Callable[..., Any], local_names: Mapping[str, Any] | None = None) -> None:
        self._task = task
        self._function = function
        self._local_names = local_names
        self._signature = callables.signature(task, function)
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
            raise InvalidArguments(self._misfit(args, kwargs) or f"{self._task}: {explain(error)}") from None
        except Exception as error:  # a validator's own, or that of a value that cannot be hashed
            raise InvalidArguments(f"{self._task}: checking the arguments raised {_told(error)}") from error
        if (text := parameters.dump_short(given, checked, limit)) is not None:
            return text
        if (rounded := parameters.rounded(given, checked)) is not None:
            raise InvalidArguments(f"{self._task}: {rounded}")
        try:
            text = parameters.dump(checked, f"{self._task}: ", limit)
            jsontext.check_size(len(text.encode()), f"{self._task}: arguments", limit)
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        return text

    def has(self, name: str) -> bool:
        """Whether there is a parameter of this name."""
        return name in self._signature.parameters

    def encode_some(self, values: Mapping[str, Any]) -> str:
        """Return the JSON of some of the arguments as `encode` would store them. Raises InvalidArguments."""
        for name in values:
            if name not in self._signature.parameters:
                raise InvalidArguments(f"{self._task}: there is no parameter {name!r}; it takes {self._signature}")
        some = self._build({name: (hint, True) for name, (hint, _) in self._hints.items() if name in values})
        try:
            return some.dump(some.validate(values), f"{self._task}: ", 1 << 30)
        except ValidationError as error:
            raise InvalidArguments(f"{self._task}: {explain(error)}") from None
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        except Exception as error:
            raise InvalidArguments(f"{self._task}: checking the arguments raised {_told(error)}") from error

    def decode(self, raw: bytes | str) -> dict[str, Any]:
        """Return stored arguments as keyword arguments of the function. Raises InvalidArguments naming the parameter."""
        if raw == b"{}" and not self._needed:
            return {}
        try:
            return self._parameters.parse(raw)
        except ValidationError as error:
            refused = InvalidArguments(f"{self._task}: stored arguments do not fit: {explain(error)}")
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
        returned, what = self._returned, f"{self._task}: "
        try:
            given = {_RESULT: value}
            checked = returned.validate(given)
            text = returned.dump_short(given, checked, limit) or ""
            if not text:
                if (rounded := returned.rounded(given, checked)) is not None:
                    raise ResultError(what + rounded)
                text = returned.dump(checked, what, limit)
        except ValidationError as error:
            raise ResultError(f"{what}{explain(error)}; the return annotation says otherwise") from None
        except ValueError as error:
            raise ResultError(str(error)) from None
        except ResultError:
            raise
        except Exception as error:  # a validator's or a serializer's own
            raise ResultError(f"{what}result={shorten(value)}: checking it raised {_told(error)}") from error
        return text[len(_HEAD) : -1].encode()

    def decode_result(self, raw: str) -> Any:
        """Return a stored result as the function's return annotation says. Raises ResultError when it does not fit."""
        try:
            return self._returned.parse(f"{_HEAD}{raw}}}")[_RESULT]
        except ValidationError as error:
            raise ResultError(f"{self._task}: stored {explain(error)}") from None
        except Exception as error:  # a validator's own
            raise ResultError(f"{self._task}: reading the stored result raised {_told(error)}") from error

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
    def _hints(self) -> dict[str, tuple[Any, bool]]:
        """The parameters' types, and whether each is required."""
        return {
            p.name: (self._resolve(p.name, p.annotation), p.default is p.empty)
            for p in self._signature.parameters.values()
        }

    @cached_property
    def _parameters(self) -> Fields:
        return self._build(self._hints)

    @cached_property
    def _returned(self) -> Fields:
        return self._build({_RESULT: (self._resolve("return", self._signature.return_annotation), True)})

    @cached_property
    def _returns_nothing(self) -> bool:
        """Whether None is what it may return, with nothing to check or to convert."""
        hint = self._resolve("return", self._signature.return_annotation)
        return hint is Any or hint is type(None)

    def _resolve(self, name: str, annotation: Any) -> Any:
        return resolve(self._task, self._function, name, annotation, self._local_names)

    def _build(self, hints: Mapping[str, tuple[Any, bool]]) -> Fields:
        for name, (hint, _) in hints.items():
            if (fault := refusal(hint, name)) is not None:
                raise TaskDefinitionError(f"{self._task}: {fault}")
        try:
            return Fields(hints)
        except Exception as error:  # pydantic's own, and those of a type that makes its schema itself
            raise TaskDefinitionError(
                f"{self._task}: an annotation of {', '.join(hints)} is not one that pydantic can check: {plain_text(error)}"
            ) from error

    def _misfit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Return how a call does not fit the signature, or None when it does, whatever the types."""
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            return f"{self._task}: {error}; it takes {self._signature}"
        return None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _annotation(annotation: Any) -> str:
    """Return an annotation as text, whether it was written as text or not."""
    if annotation is inspect.Parameter.empty:
        return ""
    # Text within text: an annotation in quotes in a module whose annotations are text.
    text = annotation.strip("'\"") if isinstance(annotation, str) else inspect.formatannotation(annotation)
    # Addresses differ from process to process.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
