"""The value of `--queues`: the queues that a worker serves, with weights, caps and order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from jobq.errors import ConfigurationError

MAX_NAME = 100
MAX_NUMBER = 1_000_000
FORM = "NAME, NAME:WEIGHT, NAME:max=CAP or NAME:WEIGHT:max=CAP"

# A name may contain colons: only the very end counts, at most one cap and, before it, one weight.
_CAP = re.compile(r"(?s)(.*):max=([^:]*)")
_WEIGHT = re.compile(r"(?s)(.*):([-+]?[0-9][0-9.]*)")


class QueueOrder(StrEnum):
    """How a worker chooses between the queues that it serves."""

    PRIORITY = "priority"
    """Higher priorities first, over all queues; queues with jobs of one priority share."""
    SHARES = "shares"
    """Each queue gets its share, whatever the priorities.

    Within a queue, higher priorities come first.
    """
    STRICT = "strict"
    """The queues in the order of their names; a later queue gets what earlier ones leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """One of the queues that a worker serves."""

    name: str
    weight: int | None = None
    """Its share relative to the others, at least 1; None: not written, which counts as 1."""
    cap: int | None = None
    """Most of its jobs that the worker holds at a time, at least 1.

    None: only the worker's slots limit it.
    """

    def __str__(self) -> str:
        """Return the text that `parse` reads as this."""
        cap = f":max={self.cap}" if self.cap is not None else ""
        if self.weight is None and _CAP.fullmatch(self.name) is None and _WEIGHT.fullmatch(self.name) is None:
            return self.name + cap
        return f"{self.name}:{self.weight or 1}{cap}"

    @classmethod
    def parse(cls, text: str) -> QueueSpec:
        """Parse one item of `--queues`.

        If a name itself ends like a weight or a cap, it is written with its weight: ``a:5:1``.
        Raises ConfigurationError.
        """
        name, weight, cap = text.strip(), None, None
        if match := _CAP.fullmatch(name):
            name, cap = match[1].strip(), _number(text, "cap", match[2])
        if match := _WEIGHT.fullmatch(name):
            name, weight = match[1].strip(), _number(text, "weight", match[2])
        if not 1 <= len(name) <= MAX_NAME:
            raise ConfigurationError(f"queues: {text!r}: give a name of 1 to {MAX_NAME} characters, as in {FORM}")
        return cls(name=name, weight=weight, cap=cap)


def parse(text: str) -> tuple[QueueSpec, ...]:
    """Parse the value of `--queues`: items separated by commas. Raises ConfigurationError."""
    queues = tuple(QueueSpec.parse(item) for item in text.split(","))
    no_twins(queue.name for queue in queues)
    return queues


def no_twins(names: Iterable[str]) -> None:
    """Raise ConfigurationError if a queue is named twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigurationError(f"queues: {name!r} is named twice: name each queue once")
        seen.add(name)


def _number(item: str, what: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", text) or not 1 <= int(text) <= MAX_NUMBER:
        raise ConfigurationError(
            f"queues: {item!r}: {what} {text!r}: give a whole number from 1 to {MAX_NUMBER:,}, as in {FORM}"
            + ("; write a queue whose name ends so with its weight, as in 'a:5:1'" if what == "weight" else "")
        )
    return int(text)
