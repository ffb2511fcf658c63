"""The two sides of a term's colon: the qualifiers, and the kinds of value."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal

from jobq._core.durations import DAY, UNITS, in_largest_unit
from jobq._core.text import brief
from jobq.errors import InvalidFilter
from jobq.filters.words import quote

# Each has the example for an error message. `args` is written args.PATH:VALUE.
QUALIFIERS = {
    "state": "state:failed,cancelled",
    "queue": "queue:mail",
    "task": "task:mail.*",
    "tag": "tag:eu",
    "key": "key:receipt:7",
    "group": "group:customer:42",
    "worker": "worker:1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    "error": 'error:"connection refused"',
    "failure": "failure:1f0c9ab23d45",
    "attempt": "attempt:>3",
    "age": "age:>1h",
    "args": "args.order_id:42",
    "id": "id:812",
}

MAX_LENGTH = 2000
MAX_TERMS = 100
MAX_DEPTH = 20
MAX_ID = 2**63 - 1
MAX_ATTEMPT = 2**31 - 1
MAX_AGE = 100 * 366 * DAY

_OPERATORS = ("<", "<=", "=", ">=", ">")
_BOUND = re.compile(r"(<=|>=|<|>|=)?([0-9]{1,20}(?:\.[0-9]{1,20})?)([a-z]*)", re.ASCII)
_SCALAR = re.compile(r"true|false|null|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a name, written with a ``*`` after it."""

    text: str

    def __str__(self) -> str:
        return f"{quote(self.text)}*"


@dataclass(frozen=True, slots=True)
class Bound:
    """A comparison with a number; `op` is ``<``, ``<=``, ``=``, ``>=`` or ``>``.

    Ages are seconds, to the millisecond.
    """

    op: str
    number: float

    def __post_init__(self) -> None:
        if self.op not in _OPERATORS:
            raise InvalidFilter(f"{brief(self.op)}: compare by one of {' '.join(_OPERATORS)}")


@dataclass(frozen=True, slots=True)
class ArgTerm:
    """An argument, by its path, and its value: text, or a number, true, false or null.

    `value` is the text, or the form in which the other value is written.
    """

    path: tuple[str, ...]
    value: str

    def __str__(self) -> str:
        return f"args.{'.'.join(quote(part, '.') for part in self.path)}:{quote(self.value)}"

    @property
    def candidates(self) -> list[str]:
        """The possible JSON values as JSON text.

        Numbers keep their digits, which a float would round.
        """
        text = json.dumps(self.value)
        return [text, self.value] if _SCALAR.fullmatch(self.value) else [text]


def parse_attempt(term: str, value: str) -> Bound:
    """Return the bound of ``attempt:>3``. Raises InvalidFilter."""
    found = _BOUND.fullmatch(value)
    if found is None or "." in found[2] or found[3]:
        raise InvalidFilter(f"{brief(term)}: {brief(value)} is no whole number; write {QUALIFIERS['attempt']}")
    return Bound(found[1] or "=", int(found[2]))


def parse_age(term: str, value: str) -> Bound:
    """Return the bound of ``age:>1.5h``, in seconds. Raises InvalidFilter."""
    found = _BOUND.fullmatch(value)
    if found is None or found[3] not in UNITS:
        raise InvalidFilter(
            f"{brief(term)}: {brief(value)} is no age; write a number and s, m, h, d or w, as in {QUALIFIERS['age']}"
        )
    if found[1] in (None, "="):
        raise InvalidFilter(
            f"{brief(term)}: no job is that old to the instant; write age:>{value.lstrip('=')} or age:<…"
        )
    seconds = Decimal(found[2]) * UNITS[found[3]]
    # Checked before rounding, which fails for too many digits.
    if seconds > MAX_AGE:
        raise InvalidFilter(f"{brief(term)}: give an age of at most a hundred years")
    return Bound(found[1], float(round(seconds, 3)))


def age_text(age: Bound) -> str:
    """Return `age` as :func:`parse_age` accepts it, in the largest unit that divides it."""
    number, unit = in_largest_unit(age.number, ("w", "d", "h", "m"))
    return f"{age.op}{number:f}{unit}"
