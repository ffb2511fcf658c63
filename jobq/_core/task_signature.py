"""A function's signature: its parameters, their types, and which calls fit it."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from pydantic.errors import PydanticUndefinedAnnotation

from jobq._core import callables
from jobq._core.fields import Fields, plain_text
from jobq._core.hint_checks import refusal
from jobq._core.hints import resolve
from jobq._core.injection import is_injected, marked_type
from jobq.errors import InvalidArguments, TaskDefinitionError

RESULT = "result"
"""The name under which the result type is held."""


class TaskSignature:
    """The parameters and the result type of one function.

    Annotations that are text may use names that only the function's surroundings know:
    `local_names`. If an annotation cannot be resolved yet, it is tried again at the first call: it
    may be defined further down in the module. Raises TaskDefinitionError if the arguments cannot be
    stored by name.
    """

    def __init__(self, task: str, function: Callable[..., Any], local_names: Mapping[str, Any] | None = None) -> None:
        self._task = task
        self._function = function
        self._local_names = local_names
        whole = callables.signature(task, function)
        self._injected = [p for p in whole.parameters.values() if is_injected(p)]
        self._signature = whole.replace(parameters=[p for p in whole.parameters.values() if not is_injected(p)])
        self._check_injected(whole)
        self._needed = any(p.default is p.empty for p in self._signature.parameters.values())
        self._positional = [p.name for p in self._signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        try:
            _ = self._parameters, self._returned, self.resources
        except TaskDefinitionError as error:
            if not isinstance(error.__cause__, (NameError, PydanticUndefinedAnnotation)):
                raise
        else:
            self._local_names = None

    def has(self, name: str) -> bool:
        """Whether there is a parameter with this name."""
        return name in self._signature.parameters

    @cached_property
    def resources(self) -> dict[str, Any]:
        """The types of the resource parameters, which no job stores. Raises TaskDefinitionError."""
        found = {}
        for parameter in self._injected:
            found[parameter.name] = kind = marked_type(self._resolve(parameter.name, parameter.annotation))
            if kind is None:
                raise TaskDefinitionError(
                    f"{self._task}: {parameter.name} has the default `injected` and is no resource: annotate it as Resource[…]"
                )
        return found

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by name, unchecked.

        Raises InvalidArguments if the call does not fit the signature.
        """
        try:
            return dict(self._signature.bind(*args, **kwargs).arguments)
        except TypeError:
            raise InvalidArguments(self._misfit(args, kwargs) or self._task) from None

    def hint(self, name: str) -> Any:
        """Return the type of the parameter `name`."""
        return self._hints[name][0]

    @property
    def names(self) -> list[str]:
        """The names of the parameters that a job stores, in their order."""
        return list(self._signature.parameters)

    @cached_property
    def returned_type(self) -> Any:
        """The type of the result, as the function is annotated."""
        return self._resolve("return", self._signature.return_annotation)

    @property
    def task(self) -> str:
        """The task's name, for messages."""
        return self._task

    @cached_property
    def fingerprint(self) -> str:
        """Identify the signature.

        It is the same in every process and, if possible, in every Python version.

        It depends on the parameters' names, kinds and annotations, on which have defaults, and on
        the parts of the annotated types (an enum's members, a model's fields). These decide whether
        stored arguments fit.
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
        return self._build({RESULT: (self._resolve("return", self._signature.return_annotation), True)})

    def _resolve(self, name: str, annotation: Any) -> Any:
        return resolve(self._task, self._function, name, annotation, self._local_names)

    def _build(self, hints: Mapping[str, tuple[Any, bool]]) -> Fields:
        for name, (hint, _) in hints.items():
            if marked_type(hint) is not None:
                raise TaskDefinitionError(
                    f"{self._task}: {name} is a resource: write {name}: Resource[…] = injected, so that calls may leave it out"
                )
            if (fault := refusal(hint, name)) is not None:
                raise TaskDefinitionError(f"{self._task}: {fault}")
        try:
            return Fields(hints)
        except Exception as error:  # raised by pydantic, or by a type that makes its own schema
            raise TaskDefinitionError(
                f"{self._task}: an annotation of {', '.join(hints)} is not one that pydantic can check: {plain_text(error)}"
            ) from error

    def _check_injected(self, whole: inspect.Signature) -> None:
        """Raise TaskDefinitionError if a positional call and type checkers disagree on parameters."""
        before = ""
        for parameter in whole.parameters.values():
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                if is_injected(parameter):
                    before = parameter.name
                elif before:
                    raise TaskDefinitionError(
                        f"{self._task}: the resource {before} comes before {parameter.name}: put resources last, or after `*`"
                    )

    def _misfit(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
        """Return why a call does not fit the signature, regardless of types; None if it fits."""
        for parameter in self._injected:
            if parameter.name in kwargs:
                return f"{self._task}: {parameter.name} is a resource, which the runner makes: leave it out"
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            return f"{self._task}: {error}; it takes {self._signature}"
        return None


def _annotation(annotation: Any) -> str:
    """Return an annotation as text. It may have been written as text."""
    if annotation is inspect.Parameter.empty:
        return ""
    # Quotes inside text: a quoted annotation in a module whose annotations are text.
    text = annotation.strip("'\"") if isinstance(annotation, str) else inspect.formatannotation(annotation)
    # Addresses differ between processes.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
