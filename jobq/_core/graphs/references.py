"""References to the result of a workflow's node: values that are known only when the node has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, NoReturn, Protocol

ReferenceKind = Literal["result", "optional", "outcome", "results", "outcomes"]


class Referred(Protocol):
    """What a reference needs from the node that it refers to."""

    @property
    def label(self) -> str:
        """The node's name, for messages."""


class Reference:
    """Stands for a value that a node will have returned. Type checkers see the value's type.

    An attribute or an item is a reference to that part of the value. Any other use (a condition, a
    loop, a comparison, arithmetic) raises TypeError, because there is no value yet.
    """

    __slots__ = ("_reference_default", "_reference_kind", "_reference_node", "_reference_path")

    def __init__(
        self, node: Referred, kind: ReferenceKind, path: tuple[str | int, ...] = (), default: Any = None
    ) -> None:
        self._reference_node = node
        self._reference_kind: ReferenceKind = kind
        self._reference_path = path
        self._reference_default = default

    def __getattr__(self, name: str) -> Reference:
        # Names with two underscores are looked up by the interpreter and by libraries.
        if name.startswith("__"):
            raise AttributeError(name)
        return self._part(name)

    def __getitem__(self, key: str | int) -> Reference:
        if isinstance(key, bool) or not isinstance(key, (str, int)):
            raise TypeError(f"{self!r}[{key!r}]: expected a name or a number")
        return self._part(key)

    def _part(self, key: str | int) -> Reference:
        if self._reference_kind not in ("result", "optional"):
            raise TypeError(f"{self!r}.{key}: only a result has parts that can be passed on; read it in the task")
        default = self._reference_default
        if self._reference_kind == "optional" and default is not None:
            try:
                default = default[key]
            except (TypeError, LookupError):
                raise TypeError(f"{self!r}: the default has no part {key!r}: read it in the task") from None
        return Reference(self._reference_node, self._reference_kind, (*self._reference_path, key), default)

    def __repr__(self) -> str:
        label, kind = self._reference_node.label, self._reference_kind
        path = "".join(f".{key}" if isinstance(key, str) else f"[{key}]" for key in self._reference_path)
        return f"{label}.{'result_or(…)' if kind == 'optional' else kind}{path}"

    def _unknown(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} has no value yet: it is known when {self._reference_node.label!r} has ended. "
            "Pass it to a task, use .when(…) for a condition, or task.map(…) for a loop"
        )

    __bool__ = __len__ = __iter__ = __next__ = __contains__ = __call__ = _unknown
    __lt__ = __le__ = __gt__ = __ge__ = _unknown
    __eq__ = __ne__ = _unknown
    __hash__ = object.__hash__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _unknown
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __and__ = __rand__ = _unknown
    __or__ = __ror__ = __xor__ = __rxor__ = __neg__ = __pos__ = __abs__ = __invert__ = _unknown
    __int__ = __float__ = __index__ = __complex__ = __bytes__ = _unknown
    __await__ = __aiter__ = __enter__ = __aenter__ = _unknown
    __format__ = _unknown
    __reduce_ex__ = _unknown


def node_of(reference: Reference) -> Any:
    """Return the node that `reference` refers to."""
    return reference._reference_node


def kind_of(reference: Reference) -> ReferenceKind:
    """Return which value of the node it is."""
    return reference._reference_kind


def path_of(reference: Reference) -> tuple[str | int, ...]:
    """Return which part of the value it is."""
    return reference._reference_path


def default_of(reference: Reference) -> Any:
    """Return the value that takes its place if the node did not succeed."""
    return reference._reference_default


def references_in(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Reference]]:
    """Yield the references in `value` with their places, through lists, tuples and dicts."""
    if isinstance(value, Reference):
        yield place, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from references_in(each, (*place, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from references_in(each, (*place, index))


def hidden_reference(value: Any) -> Reference | None:
    """Return a reference in `value` where none can be: in a set, a dataclass or a model, or as a key; None: there is none."""
    stack, found = [(value, False)], None
    while stack:
        one, is_hidden = stack.pop()
        if isinstance(one, Reference):
            if is_hidden:
                found = one
        elif isinstance(one, Mapping):
            stack += [(key, True) for key in one if isinstance(key, Reference)]
            stack += [(each, is_hidden) for each in one.values()]
        elif isinstance(one, (list, tuple)):
            stack += [(each, is_hidden) for each in one]
        elif isinstance(one, (set, frozenset)):
            stack += [(each, True) for each in one]
        elif is_dataclass(one) or hasattr(type(one), "model_fields"):
            stack += [(each, True) for each in vars(one).values()] if hasattr(one, "__dict__") else []
    return found


def without_references(value: Any) -> Any:
    """Return `value` with None in place of each reference."""
    if isinstance(value, Reference):
        return None
    if isinstance(value, Mapping):
        return {key: without_references(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_references(each) for each in value]
    return value
