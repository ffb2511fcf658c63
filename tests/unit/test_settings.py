"""Settings and worker options that cannot be used are refused by name, with the value and the mend."""

from __future__ import annotations

from typing import Any

import pytest

from jobq import ConfigurationError, jsontext
from jobq.config import Settings
from jobq.worker import WorkerOptions


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"schema": "a-b"}, "schema='a-b': give 1 to 63 letters, digits and underscores"),
        ({"pool_size": 0}, "pool_size=0: give a number of at least 1"),
        ({"max_args_bytes": -1}, "max_args_bytes=-1: give a number of at least 1"),
        ({"connect_timeout": 0.0}, "connect_timeout=0.0: give a number of seconds above 0"),
    ],
)
def test_unusable_settings(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + sentence):
        Settings(**settings)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concurrency": 0}, "concurrency=0: give a number of at least 1"),
        ({"processes": 0}, "processes=0: give a number of at least 1"),
        ({"max_crashes": 0}, "max_crashes=0: give a number of at least 1"),
        ({"poll_interval": 0.0}, "poll_interval=0.0: give a number above 0"),
        ({"keep_failed_days": -1.0}, "keep_failed_days=-1.0: give a number above 0"),
        ({"shutdown_timeout": -1.0}, "shutdown_timeout=-1.0: give a number of seconds, 0 or more"),
        ({"heartbeat_interval": 5.0}, "heartbeat_interval=5.0, suspicion=3.5, lease=30.0: each must be longer"),
        ({"suspicion": 60.0}, "heartbeat_interval=2.0, suspicion=60.0, lease=30.0: each must be longer"),
        ({"queues": ("mail", "")}, "queues='mail,': give names of 1 to 100 characters"),
    ],
)
def test_unusable_worker_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + sentence):
        WorkerOptions(app="shop:q", settings=Settings(), **options)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([1, None, True, 0.5, float("nan")], r"^x\[4\]=nan: JSON has no NaN"),
        ({"a": {"b": "nul \0"}}, r"^x\['a'\]\['b'\] contains a NUL character"),
        ({"a": "\ud800", "b": 1}, r"^x\['a'\] contains a lone surrogate"),
        ({1: "one", "two": object()}, r"^x"),
        ((1, object()), r"^x\[1\] is of type object, which JSON does not have"),
        ([1.5, object()], r"^x\[1\] is of type object"),
        (nested(5000), r"^x is nested more than 500 deep"),
    ],
)
def test_what_json_cannot_hold(value: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        jsontext.encode(value, "x")
