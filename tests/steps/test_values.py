"""What steps take and return, and whether a replay returns the same."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from jobq import JobFailed, step
from tests.support.inline_durable import Durable, durable, fail_once


@pytest.fixture
def run(database_url: str) -> Iterator[Durable]:
    with durable(database_url) as found:
        yield found


class Color(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    at: datetime
    tags: dict[str, list[int]] = field(default_factory=dict)


class Invoice(BaseModel):
    total: Decimal
    due: date | None = None


NOW = datetime(2026, 5, 1, 12, 30, 0, 123456, tzinfo=UTC)


def same_point(value: Point) -> Point:
    return value


def same_invoice(value: Invoice) -> Invoice:
    return value


def same_color(value: Color) -> Color:
    return value


def same_decimal(value: Decimal) -> Decimal:
    return value


def same_time(value: datetime) -> datetime:
    return value


def same_delta(value: timedelta) -> timedelta:
    return value


def same_uuid(value: UUID) -> UUID:
    return value


def same_bytes(value: bytes) -> bytes:
    return value


def same_set(value: set[int]) -> set[int]:
    return value


def same_pair(value: tuple[int, str]) -> tuple[int, str]:
    return value


def same_points(value: list[Point]) -> list[Point]:
    return value


def nothing(value: None) -> None:
    return value


VALUES: list[tuple[Callable[[Any], Any], Any]] = [
    (same_point, Point(1, NOW, {"a": [1]})),
    (same_invoice, Invoice(total=Decimal("1.10"), due=date(2026, 5, 1))),
    (same_color, Color.RED),
    (same_decimal, Decimal("0.10")),
    (same_time, NOW),
    (same_delta, timedelta(days=3, microseconds=1)),
    (same_uuid, UUID(int=7)),
    (same_bytes, b"\x00\xff"),
    (same_set, {1, 2}),
    (same_pair, (1, "a")),
    (same_points, [Point(1, NOW), Point(2, NOW)]),
    (nothing, None),
]


@pytest.mark.parametrize("function_and_value", VALUES, ids=lambda each: each[0].__name__)
def test_the_first_call_and_the_replay_return_the_same(run: Durable, function_and_value: Any) -> None:
    function, value = function_and_value
    found: list[Any] = []

    def task() -> None:
        found.append(step.run(function, value))
        fail_once()

    async def task_async() -> None:
        found.append(await step.run_async(function, value))
        fail_once()

    run.run(task)
    run.run(task_async)
    assert found == [value] * 4
    assert {type(each) for each in found} == {type(value)}


calls: list[str] = []


def number(value: int = 0, *, plus: int = 0) -> int:
    calls.append(f"number {value} {plus}")
    return value + plus


async def number_async(value: int = 0) -> int:
    calls.append(f"number {value}")
    return value


class Counter:
    def __init__(self, plus: int) -> None:
        self.plus = plus

    def add(self, value: int) -> int:
        return value + self.plus

    @classmethod
    def make(cls, value: int) -> int:
        return value

    def __call__(self, value: int) -> int:
        return value - self.plus


def test_what_can_be_a_step(run: Durable) -> None:
    calls.clear()

    @run.app.task(name="task of the other kind")
    def other(value: int) -> int:
        return value

    def task(plus: int) -> list[int]:
        def nested(value: int) -> int:
            calls.append("nested")
            return value + plus

        found = [
            step.run(number, 1, plus=2),
            step.run(partial(number, 3), plus=2),
            step.run(Counter(10).add, 1),
            step.run(Counter.make, 5),
            step.options(name="minus").run(Counter(1), 5),
            step.options(name="anonymous").run(lambda: number(7)),
            step.run(nested, 1),
            step.run(other, 9),
        ]
        fail_once()
        return found

    job = run.task(task).submit(100)
    assert run.finish(job) == [3, 5, 11, 5, 4, 7, 101, 9]
    assert calls == ["number 1 2", "number 3 2", "number 7 0", "nested"]
    assert [(name, args) for _, name, _, args in run.steps(job)] == [
        ("number", '{"value":1,"plus":2}'),
        ("number", '{"value":3,"plus":2}'),
        ("Counter.add", '{"value":1}'),
        ("Counter.make", '{"value":5}'),
        ("minus", '{"value":5}'),
        ("anonymous", "{}"),
        ("nested", '{"value":1}'),
        ("task of the other kind", '{"value":9}'),
    ]


def test_what_a_partial_binds_tells_steps_apart(run: Durable) -> None:
    calls.clear()

    def task() -> list[int]:
        numbers = (1, 2) if not calls else (2, 1)
        found = [step.run(partial(number, value)) for value in numbers]
        fail_once()
        return found

    assert run.run(task) == [2, 1]
    assert calls == ["number 1 0", "number 2 0"]


def test_an_async_task_takes_both_kinds_of_functions(run: Durable) -> None:
    calls.clear()

    async def task() -> list[int]:
        found = [
            await step.run_async(number, 1),
            await step.run_async(number_async, 2),
            await step.run_async(partial(number_async, 3)),
            await step.options(name="lambda").run_async(lambda: number_async(4)),
        ]
        fail_once()
        return found

    assert run.run(task) == [1, 2, 3, 4]
    assert calls == ["number 1 0", "number 2", "number 3", "number 4"]


def test_keywords_in_another_order_are_the_same_arguments(run: Durable) -> None:
    calls.clear()

    def task() -> int:
        found = step.run(number, plus=1, value=2) if not calls else step.run(number, value=2, plus=1)
        fail_once()
        return found

    assert run.run(task) == 3
    assert calls == ["number 2 1"]


def large() -> str:
    return "x" * 2_000_000


def with_nul() -> str:
    return "a\0b"


def not_json() -> object:
    return object()


def wrong_type() -> int:
    return "seven"  # type: ignore[return-value]


def not_a_number() -> float:
    return float("nan")


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (large, "2000002 bytes as JSON, and at most 1048576 are allowed"),
        (with_nul, "contains a NUL character"),
        (not_json, "cannot be stored as JSON"),
        (wrong_type, "the return annotation says otherwise"),
        (not_a_number, "JSON has no NaN"),
    ],
)
def test_a_result_that_cannot_be_stored_fails_the_job_at_once(
    run: Durable, function: Callable[[], Any], told: str
) -> None:
    def task() -> None:
        step.options(max_attempts=5, backoff=[0]).run(function)

    with pytest.raises(JobFailed, match=told):
        run.run(task)


def test_a_caught_result_error_is_the_same_in_a_replay(run: Durable) -> None:
    seen: list[str] = []

    def effect() -> object:
        seen.append("effect")
        return object()

    def task() -> str:
        try:
            step.run(effect)
        except Exception as error:
            told = type(error).__name__
        step.run(number)
        fail_once()
        return told

    assert run.run(task) == "ResultError"
    assert seen == ["effect"]


def two_lists(value: list[int], other: list[int]) -> int:
    return len(value) + len(other)


def test_arguments_are_read_before_the_function_changes_them(run: Durable) -> None:
    def grow(value: list[int]) -> int:
        value.append(1)
        return len(value)

    def task() -> int:
        found = step.run(grow, [])
        fail_once()
        return found

    job = run.task(task).submit()
    assert run.finish(job) == 1
    assert [args for *_, args in run.steps(job)] == ['{"value":[]}']


def test_payloads_of_signals(run: Durable) -> None:
    def task() -> list[str]:
        return [
            repr(step.wait_for("invoice", Invoice)),
            repr(step.wait_for("color", Color)),
            repr(step.wait_for("points", list[Point])),
            repr(step.wait_for("go", type(None))),
            repr(step.wait_for("amount", Decimal)),
        ]

    job = run.start(task)
    for name, payload in {
        "amount": Decimal("0.10"),
        "color": Color.RED,
        "go": None,
        "invoice": Invoice(total=Decimal("2.50")),
        "points": [Point(1, NOW)],
    }.items():
        run.app.send_signal(None, job, name, payload)
    assert run.finish(job) == [
        repr(Invoice(total=Decimal("2.50"))),
        repr(Color.RED),
        "[Point(x=1, at=datetime.datetime(2026, 5, 1, 12, 30, 0, 123456, tzinfo=TzInfo(0)), tags={})]",
        "None",
        "Decimal('0.10')",
    ]


def test_a_payload_that_does_not_fit(run: Durable) -> None:
    def task() -> int:
        return step.wait_for("amount", int)

    job = run.start(task)
    run.app.send_signal(None, job, "amount", "many")
    with pytest.raises(JobFailed, match="signal 'amount': its payload does not fit <class 'int'>"):
        run.finish(job)


class Local:
    """No type whose values JSON can hold."""


@pytest.mark.parametrize("kind", [Local, 3, "int"])
def test_an_unusable_type_is_refused_before_the_wait(run: Durable, kind: Any) -> None:
    def task() -> Any:
        return step.wait_for("amount", kind)

    with pytest.raises(JobFailed, match=r"step.wait_for\('amount', .*\): expected a type whose values JSON can hold"):
        run.run(task, max_attempts=1)
