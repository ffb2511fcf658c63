"""How long a job waits before its next attempt."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import TypeAlias

from jobq._core.durations import YEAR, to_seconds
from jobq.errors import InvalidOption

Delays: TypeAlias = Sequence[float | timedelta] | Callable[[int], float | timedelta]
"""A list of delays, or a function that returns the delay after attempt number n (from 1)."""

_LONGEST = float(YEAR)
_BASE, _CAP = 2.0, 3600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a job waits for its next attempt. There are three forms:

    - ``Backoff(base=2, cap=3600)``, the default: exponential. After attempt n the wait is at most
      ``min(cap, base * 2 ** (n - 1))`` seconds. With the default ``max_attempts=10``, the nine
      waits add up to at most 1,022 s (17 minutes), and to half of that on average. If an outage
      lasts longer, all jobs that ran into it become dead letters. A larger `base` or more attempts
      outlast it.
    - ``Backoff([10, 60, 600])``: these delays, in seconds or as timedelta. Each further attempt
      repeats the last one.
    - ``Backoff(lambda attempt: 30 * attempt)``: the function's result, in seconds or as timedelta.
      The worker calls the function. If it raises an exception or returns no duration, the default
      backoff is used for that wait.

    ``@q.task(backoff=…)`` also takes the list or the function itself. ``max_attempts`` sets the
    number of attempts. Raises InvalidOption.
    """

    delays: Delays | None = None
    """Delays in seconds, or a function of the attempt number.

    None (default): see `base` and `cap`.
    """
    _: KW_ONLY
    base: float = _BASE
    """Longest wait after the first attempt, in seconds (default: 2).

    A smaller value retries sooner, and loads a failing service more.
    """
    cap: float = _CAP
    """Longest wait after any attempt, in seconds (default: 3600). Not used with `delays`."""
    jitter: bool | None = None
    """Whether waits are random.

    True: each wait is drawn evenly from 0 to the delay, so jobs that failed together do not return
    together. False: each wait is exactly the delay. None (default): True for exponential delays,
    False for `delays`.
    """

    def __post_init__(self) -> None:
        if self.jitter is not None and not isinstance(self.jitter, bool):
            raise InvalidOption(f"Backoff(jitter={self.jitter!r}): expected True, False or None")
        if self.delays is None:
            if not 0 < self.base <= self.cap or not self.cap <= _LONGEST:
                raise InvalidOption(
                    f"Backoff(base={self.base!r}, cap={self.cap!r}): expected seconds, 0 < base <= cap <= one year"
                )
            return
        if (self.base, self.cap) != (_BASE, _CAP):
            raise InvalidOption("Backoff: delays and base or cap are both given: pass delays alone, or base and cap")
        if callable(self.delays):
            _check_function(self.delays)
        else:
            object.__setattr__(self, "delays", _checked(self.delays))

    def longest(self, attempt: int) -> float:
        """Return the longest wait in seconds after attempt number `attempt` (the first is 1).

        Raises InvalidOption if the function returns no duration. The function's own exceptions
        pass.
        """
        number = max(attempt, 1)
        if self.delays is None:
            # The exponent is bounded: 2.0 ** 1024 overflows.
            return min(self.cap, self.base * 2.0 ** min(number - 1, 60))
        if callable(self.delays):
            return _seconds(self.delays(number))
        return _seconds(self.delays[min(number, len(self.delays)) - 1])

    def delay(self, attempt: int) -> float:
        """Return the wait in seconds after attempt number `attempt`.

        Raises the errors of `longest`.
        """
        longest = self.longest(attempt)
        jitter = self.delays is None if self.jitter is None else self.jitter
        return random.uniform(0, longest) if jitter else longest

    @classmethod
    def of(cls, given: Backoff | Delays | None) -> Backoff:
        """Return `given` as a Backoff.

        A list or function becomes its `delays`; None is the default.

        Raises InvalidOption.
        """
        if given is None:
            return cls()
        return given if isinstance(given, Backoff) else cls(given)


def _checked(delays: object) -> tuple[float, ...]:
    if isinstance(delays, (str, bytes)) or not isinstance(delays, Sequence) or not delays:
        raise InvalidOption(
            f"Backoff({delays!r}): expected a list of delays such as [10, 60, 600], or a function of the attempt's number"
        )
    return tuple(_seconds(delay) for delay in delays)


def _check_function(function: Callable[..., object]) -> None:
    if inspect.iscoroutinefunction(function):
        raise InvalidOption(f"Backoff({function!r}): the function is async; expected a plain one")
    try:
        inspect.signature(function).bind(1)
    except ValueError:  # a builtin without a signature
        return
    except TypeError:
        raise InvalidOption(
            f"Backoff({function!r}): expected a function of one argument, the number of the attempt that failed"
        ) from None


def _seconds(delay: object) -> float:
    found = to_seconds(delay)
    if found is None or not 0 <= found <= _LONGEST:
        raise InvalidOption(
            f"Backoff: delay {delay!r}: expected a number of seconds between 0 and one year, or a timedelta"
        )
    return found
