"""A function's signature as a contract: arguments become JSON at the call, and back at the run.

Results are converted the same way. Arguments are stored by parameter name, and only if they were
given: defaults are applied by the function itself at the run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from jobq._core import json_text
from jobq._core.fields import Fields, explain
from jobq._core.round_trip import shorten
from jobq._core.task_signature import RESULT, TaskSignature
from jobq.errors import InvalidArguments, ResultError

_HEAD = f'{{"{RESULT}":'
_NOTHING = b"null"


class Arguments(TaskSignature):
    """The conversion of one function's arguments and results.

    Raises TaskDefinitionError if the arguments cannot be stored by name.
    """

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], limit: int) -> str:
        """Bind, check and serialise the arguments of a call: a JSON object by parameter name.

        Raises InvalidArguments, which names the parameter.
        """
        parameters = self._parameters
        given = dict(zip(self._positional, args, strict=False))
        count = len(given)
        given.update(kwargs)
        # The types reveal missing and unknown names. Only the signature reveals surplus or repeated
        # arguments.
        if (count < len(args) or len(given) < count + len(kwargs)) and (misfit := self._misfit(args, kwargs)):
            raise InvalidArguments(misfit)
        try:
            checked = parameters.validate(given)
        except ValidationError as error:
            raise InvalidArguments(self._misfit(args, kwargs) or f"{self._task}: {explain(error)}") from None
        except Exception as error:  # raised by a validator, or by a value that cannot be hashed
            raise InvalidArguments(f"{self._task}: checking the arguments raised {_told(error)}") from error
        if (text := parameters.dump_short(given, checked, limit)) is not None:
            return text
        if (rounded := parameters.rounded(given, checked)) is not None:
            raise InvalidArguments(f"{self._task}: {rounded}")
        try:
            text = parameters.dump(checked, f"{self._task}: ", limit)
            json_text.check_size(len(text.encode()), f"{self._task}: arguments", limit)
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        return text

    def encode_some(self, values: Mapping[str, Any]) -> str:
        """Return some arguments as JSON, as `encode` would store them. Raises InvalidArguments."""
        for name in values:
            if name not in self._signature.parameters:
                raise InvalidArguments(f"{self._task}: there is no parameter {name!r}; it takes {self._signature}")
        return self._encode_some(self._some(values), values, 1 << 30)

    def encoder(self, name: str, limit: int) -> Callable[[Any], str]:
        """Return a function that returns a value of the parameter `name` as JSON, like `encode_some`."""
        some = self._some([name])
        return lambda value: self._encode_some(some, {name: value}, limit)

    def decode(self, raw: bytes | str) -> dict[str, Any]:
        """Return stored arguments as keyword arguments.

        Raises InvalidArguments, which names the parameter.
        """
        if raw == b"{}" and not self._needed:
            return {}
        try:
            return self._parameters.parse(raw)
        except ValidationError as error:
            refused = InvalidArguments(f"{self._task}: stored arguments do not fit: {explain(error)}")
            # Missing and unknown parameters, not missing parts of a value.
            of_names = any(
                fault["type"] in ("missing", "extra_forbidden") and len(fault["loc"]) == 1
                for fault in error.errors(include_url=False, include_context=False, include_input=False)
            )
            refused.stored = "parameters" if of_names else "values"
            raise refused from None

    def decode_some(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return some stored arguments as keyword arguments. Raises InvalidArguments."""
        some = self._build({name: hint for name, hint in self._hints.items() if name in values})
        try:
            return some.parse(json_text.encode(dict(values), self._task))
        except ValidationError as error:
            raise InvalidArguments(f"{self._task}: stored arguments do not fit: {explain(error)}") from None

    def encode_result(self, value: Any, limit: int) -> bytes:
        """Return the function's result as JSON. Raises ResultError if it cannot be stored."""
        if value is None and self._returns_nothing and limit >= len(_NOTHING):
            return _NOTHING
        returned, what = self._returned, f"{self._task}: "
        try:
            given = {RESULT: value}
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
        except Exception as error:  # raised by a validator or serializer
            raise ResultError(f"{what}result={shorten(value)}: checking it raised {_told(error)}") from error
        return text[len(_HEAD) : -1].encode()

    def decode_result(self, raw: str) -> Any:
        """Return a stored result converted to the return annotation.

        Raises ResultError if it does not fit.
        """
        try:
            return self._returned.parse(f"{_HEAD}{raw}}}")[RESULT]
        except ValidationError as error:
            raise ResultError(f"{self._task}: stored {explain(error)}") from None
        except Exception as error:  # raised by a validator
            raise ResultError(f"{self._task}: reading the stored result raised {_told(error)}") from error

    def _some(self, names: Collection[str]) -> Fields:
        # Kept: pydantic takes milliseconds, and a workflow may have 100,000 nodes.
        if (found := self._made.get(wanted := frozenset(names))) is None:
            found = self._build({name: (hint, True) for name, (hint, _) in self._hints.items() if name in wanted})
            self._made[wanted] = found
        return found

    @cached_property
    def _made(self) -> dict[frozenset[str], Fields]:
        return {}

    def _encode_some(self, some: Fields, values: Mapping[str, Any], limit: int) -> str:
        try:
            checked = some.validate(values)
            if (text := some.dump_short(values, checked, limit)) is not None:
                return text
            if (rounded := some.rounded(values, checked)) is not None:
                raise ValueError(f"{self._task}: {rounded}")
            return some.dump(checked, f"{self._task}: ", limit)
        except ValidationError as error:
            raise InvalidArguments(f"{self._task}: {explain(error)}") from None
        except ValueError as error:
            raise InvalidArguments(str(error)) from None
        except Exception as error:
            raise InvalidArguments(f"{self._task}: checking the arguments raised {_told(error)}") from error

    @cached_property
    def _returns_nothing(self) -> bool:
        """Whether it may only return None, which needs no check and no conversion."""
        hint = self._resolve("return", self._signature.return_annotation)
        return hint is Any or hint is type(None)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
