"""What `--queues` says: which queues a worker serves, with which weights and caps, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from jobq.errors import ConfigurationError

MAX_NAME = 100
MAX_NUMBER = 1_000_000
FORM = "NAME, NAME:WEIGHT, NAME:max=CAP or NAME:WEIGHT:max=CAP"

# A name may contain colons: only what is at the very end counts, at most one cap and, before that, one weight.
_CAP = re.compile(r"(?s)(.*):max=([^:]*)")
_WEIGHT = re.compile(r"(?s)(.*):([-+]?[0-9][0-9.]*)")


class QueueOrder(StrEnum):
    """How a worker chooses between the queues that it serves."""

    PRIORITY = "priority"
    """Higher priorities first, over all queues; of those with jobs of one priority, each gets its share."""
    SHARES = "shares"
    """Each queue gets its share, whatever the priorities of its jobs; higher priorities first within a queue."""
    STRICT = "strict"
    """The queues in the order in which they are named: a later one gets what the earlier ones leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedQueue:
    """One of the queues that a worker serves."""

    name: str
    weight: int | None = None
    """Its share beside the others', from 1 on; None: none is written, which counts as 1."""
    cap: int | None = None
    """Most of its jobs that the worker holds at a time, from 1 on; None: no limit but the worker's slots."""

    def __str__(self) -> str:
        """Return what `parse` reads as this."""
        cap = f":max={self.cap}" if self.cap is not None else ""
        if self.weight is None and _CAP.fullmatch(self.name) is None and _WEIGHT.fullmatch(self.name) is None:
            return self.name + cap
        return f"{self.name}:{self.weight or 1}{cap}"

    @classmethod
    def parse(cls, text: str) -> ServedQueue:
        """Read one item of `--queues`.

        A name that itself ends in what would be read as a weight or a cap is written with its weight: ``a:5:1``.
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


def parse(text: str) -> tuple[ServedQueue, ...]:
    """Read the value of `--queues`: items separated by commas. Raises ConfigurationError."""
    queues = tuple(ServedQueue.parse(item) for item in text.split(","))
    no_twins(queue.name for queue in queues)
    return queues


def no_twins(names: Iterable[str]) -> None:
    """Raise ConfigurationError when a queue is named twice."""
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
