"""What user code hands over is checked where it arrives: no number of it ends a worker."""

from __future__ import annotations

import math
from typing import Any
from uuid import uuid4

import pytest

from jobq._core.storable import LONGEST_DELAY
from jobq._worker.ipc.messages import Disposition, Failure
from jobq._worker.runner.user_values import retry_delay, retry_seconds, snooze_seconds
from jobq._worker.statements.parameters import settle_parameters
from jobq.errors import Retry, Snooze
from jobq.retry import Backoff


class Sly(Snooze):
    """Its seconds are whatever they are."""

    def __init__(self, seconds: Any) -> None:
        super().__init__(1)
        self.seconds = seconds


class Raising(Snooze):
    def __init__(self) -> None:
        Exception.__init__(self)

    @property
    def seconds(self) -> float:  # type: ignore[override]
        raise RuntimeError("no seconds")


@pytest.mark.parametrize("seconds", [1e15, math.inf, -1, math.nan, "soon", None, 10**400, [1]])
def test_a_snooze_that_is_no_duration(seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds"):
        snooze_seconds(Sly(seconds))


def test_a_snooze_whose_seconds_raise() -> None:
    with pytest.raises(ValueError, match="RuntimeError"):
        snooze_seconds(Raising())
    assert snooze_seconds(Sly(3)) == 3.0


@pytest.mark.parametrize("after", [1e15, math.inf, -1, math.nan, "soon", 10**400, [1]])
def test_a_retry_whose_delay_was_changed_to_no_duration(after: Any) -> None:
    error = Retry(after=1)
    error.after = after
    with pytest.raises(ValueError, match="after"):
        retry_seconds(error)
    error.after = 3
    assert retry_seconds(error) == 3.0
    error.after = None
    assert retry_seconds(error) is None


@pytest.mark.parametrize("said", [math.nan, -1, "soon", 10**400, [1]])
def test_a_rule_that_says_no_duration(said: Any) -> None:
    delay = retry_delay(lambda: said, 1)
    assert delay is not None
    assert 0 <= delay <= Backoff().longest(1)


def test_a_rule_that_raises_or_is_endless() -> None:
    def broken() -> float:
        raise RuntimeError

    assert retry_delay(broken, 1) is not None
    assert retry_delay(lambda: math.inf, 1) == LONGEST_DELAY
    assert retry_delay(lambda: None, 1) is None
    assert retry_delay(lambda: 2, 1) == 2.0


def test_what_reaches_the_database_is_bounded() -> None:
    setbacks = [
        Failure(
            n,
            1,
            0,
            Disposition.RETRY,
            delay=delay,
            seconds=seconds,
            error_type="E\x00",
            message="a\x00\ud800",
            traceback="ok",
        )
        for n, (delay, seconds) in enumerate([(math.nan, -1.0), (math.inf, math.inf), (-3.0, math.nan), (1e300, None)])
    ]
    found = settle_parameters(uuid4(), setbacks)
    assert found["delays"] == [0.0, LONGEST_DELAY, 0.0, LONGEST_DELAY]
    assert found["seconds"] == [0.0, LONGEST_DELAY, 0.0, None]
    assert found["messages"] == ["a\\x00\\ud800"] * 4
    assert found["error_types"] == ["E\\x00"] * 4
    assert found["tracebacks"] == ["ok"] * 4
