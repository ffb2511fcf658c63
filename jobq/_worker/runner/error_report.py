"""Describes exceptions as text that can be stored.

Reading an exception may run user code: `__str__`, properties, metaclasses, notes. That code may
raise anything, including SystemExit, which must end neither the runner nor its event loop. So each
part is guarded separately.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection
from typing import Any

from jobq._core.storable import storable_text

# Maximum length of a type's name, in bytes.
_NAME = 200
# The interpreter's own attributes of a class. A metaclass can hide them with others.
_qualname: Any = type.__dict__["__qualname__"]
_module: Any = type.__dict__["__module__"]


def type_name(error: BaseException) -> str:
    """Return the name of the error's type, with its module unless it is a builtin."""
    kind = type(error)
    name = str.__str__(_qualname.__get__(kind))
    try:
        module = _module.__get__(kind)
    except AttributeError:
        module = None
    if isinstance(module, str) and module != "builtins":
        name = f"{str.__str__(module)}.{name}"
    return storable_text(name, _NAME)


def text_of(error: BaseException) -> str:
    """Return the text of the error; if there is none, the reason for that."""
    try:
        # Return a plain string: a subclass of str has methods of its own.
        return str.__str__(str(error))
    except BaseException as fault:
        return f"{type_name(error)}, whose text cannot be had: its __str__ raised {type_name(fault)}"


def traceback_of(error: BaseException, ours: Collection[str]) -> str:
    """Return the traceback of the error.

    Leading frames in the files `ours` are left out: they say nothing about the task.
    """
    try:
        inner = error.__traceback__
        while inner is not None and inner.tb_frame.f_code.co_filename in ours:
            inner = inner.tb_next
        return "".join(traceback.format_exception(type(error), error, inner, limit=-50))
    except BaseException as fault:
        return f"{type_name(error)} (its traceback cannot be formatted: {type_name(fault)})"
