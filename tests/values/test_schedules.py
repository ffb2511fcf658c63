"""What a schedule is, which of its ticks are due by each policy, and how applications declare schedules."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobq import CurrentJob, InvalidArguments, InvalidOption, JobQ, TaskDefinitionError
from jobq.cron import Cron, Every, When, following
from jobq.schedule import GRACE, Schedule, due

START = datetime(2026, 3, 28, 12, tzinfo=UTC)
RULES = st.sampled_from(
    [
        Every(timedelta(seconds=1)),
        Every(timedelta(seconds=7)),
        Every(timedelta(minutes=10)),
        Cron("*/5 * * * *"),
        Cron("30 2 * * *", "Europe/Berlin"),
        Cron("*/30 2 * * *", "Europe/Berlin"),
        Cron("0 */3 * * *", "Australia/Lord_Howe"),
    ]
)
PAUSES = st.lists(st.integers(1, 20_000), min_size=1, max_size=20)


def looks(rule: When, pauses: list[int], **policy: Any) -> tuple[list[datetime], list[datetime], datetime]:
    """What a scheduler does that looks after each of `pauses` (seconds): its ticks, the moments, where it is."""
    now, next_at, found, moments = START, rule.next(START), [], []
    for pause in pauses:
        now += timedelta(seconds=pause)
        moments.append(now)
        result = due(rule, next_at, now, **policy)
        assert result.next_at > now
        found += result.ticks
        next_at = result.next_at
    return found, moments, next_at


def every_tick(rule: When, until: datetime) -> list[datetime]:
    found, tick = [], rule.next(START)
    while tick <= until:
        found.append(tick)
        tick = rule.next(tick)
    return found


@settings(max_examples=60, deadline=None)
@given(rule=RULES, pauses=PAUSES)
def test_all_makes_each_tick_once_however_it_is_looked_at(rule: When, pauses: list[int]) -> None:
    found, moments, next_at = looks(rule, pauses, missed="all", max_missed=10**6)
    assert found == every_tick(rule, moments[-1])
    assert next_at == rule.next(moments[-1])


@settings(max_examples=60, deadline=None)
@given(rule=RULES, pauses=PAUSES)
def test_last_makes_the_latest_tick_of_each_look(rule: When, pauses: list[int]) -> None:
    found, moments, _ = looks(rule, pauses, missed="last")
    expected: list[datetime] = []
    for before, now in zip([START, *moments], moments, strict=False):
        expected += [tick for tick in every_tick(rule, now) if tick > before][-1:]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(rule=RULES, pauses=PAUSES)
def test_skip_makes_no_tick_that_is_older_than_the_grace(rule: When, pauses: list[int]) -> None:
    found, moments, _ = looks(rule, pauses, missed="skip")
    expected: list[datetime] = []
    for before, now in zip([START, *moments], moments, strict=False):
        expected += [tick for tick in every_tick(rule, now) if tick > before and now - tick <= GRACE]
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(rule=RULES, pause=st.integers(1, 10**6), cap=st.integers(1, 50))
def test_the_cap_keeps_the_latest(rule: When, pause: int, cap: int) -> None:
    now = START + timedelta(seconds=pause)
    result = due(rule, rule.next(START), now, missed="all", max_missed=cap)
    whole = due(rule, rule.next(START), now, missed="all", max_missed=10**6).ticks
    assert result.ticks == whole[-cap:]
    assert result.left_out == (len(whole) > cap)


def test_what_is_left_out_is_told() -> None:
    rule, since = Every(timedelta(hours=1)), START
    assert not due(rule, since, START + timedelta(minutes=1), missed="last").left_out
    assert due(rule, since, START + timedelta(hours=3), missed="last").left_out
    assert due(rule, since, START + timedelta(hours=3), missed="skip").left_out
    assert due(rule, since, START + timedelta(hours=3, minutes=30), missed="skip").ticks == []
    assert not due(rule, since, START + timedelta(hours=3), missed="all").left_out
    early = due(rule, since, START - timedelta(minutes=1), missed="all")
    assert (early.ticks, early.next_at) == ([], START)


# --- Schedules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"missed": "some"}, "missed='some': expected one of skip, last, all"),
        ({"max_missed": 0}, "max_missed=0: expected a whole number from 1 to 10000"),
        ({"max_missed": 20_000}, "max_missed=20000"),
        ({"name": ""}, "name='': expected text of 1 to 200 characters"),
        ({"name": "x" * 201}, "expected text of 1 to 200 characters"),
        ({"name": "a\x00b"}, "contains a NUL character"),
        ({"name": "a\nb"}, "contains a control character"),
        ({"priority": 10}, "priority=10"),
        ({"queue": ""}, "queue=''"),
        ({"timeout": 0.0}, "timeout=0.0"),
        ({"args": {"at": 1}, "tick_argument": "at"}, "tick_argument='at' is given by args as well"),
        ({"headers": {"a": float("nan")}}, "headers"),
    ],
)
def test_a_schedule_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        Schedule(**{"name": "s", "task": "t", "when": Cron("0 7 * * *"), **options})


def test_arguments_that_are_no_json() -> None:
    for args in ({"at": START}, {1: 2}, [1], {"x": float("inf")}):
        with pytest.raises(InvalidArguments, match="args"):
            Schedule(name="s", task="t", when=Cron("0 7 * * *"), args=args)  # type: ignore[arg-type]


# --- In code -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def q() -> JobQ:
    return JobQ()


def test_above_and_below_the_task_and_as_a_call(q: JobQ) -> None:
    @q.schedule("0 7 * * mon-fri", timezone="Europe/Berlin", missed="all", max_missed=3)
    @q.task(queue="mail", priority=7, max_attempts=2, timeout=9, headers={"tags": ["x"]})
    def above() -> None: ...

    @q.task
    @q.schedule(every=timedelta(minutes=5))
    def below() -> None: ...

    assert q.schedule("@daily", name="another")(above) is above
    assert above() is None

    assert set(q.schedules) == {"above", "below", "another"}
    first = q.schedules["above"]
    assert (first.task, first.when) == ("above", Cron("0 7 * * mon-fri", "Europe/Berlin"))
    assert (first.queue, first.priority, first.max_attempts, first.timeout) == ("mail", 7, 2, 9)
    assert (first.missed, first.max_missed, dict(first.headers)) == ("all", 3, {"tags": ["x"]})
    assert q.schedules["below"].when == Every(timedelta(minutes=5))
    assert q.schedules["another"].task == "above"


def test_queue_and_priority_of_its_own(q: JobQ) -> None:
    @q.schedule("@daily", queue="night", priority=0)
    @q.task
    def task() -> None: ...

    assert (q.schedules["task"].queue, q.schedules["task"].priority) == ("night", 0)


def test_arguments_are_checked_against_the_task_at_the_definition(q: JobQ) -> None:
    @q.task
    def report(day: date, size: int = 1) -> None: ...

    q.schedule("@daily", args={"day": date(2026, 1, 31), "size": 2})(report)
    assert json.loads(q.schedules["report"].args_json) == {"day": "2026-01-31", "size": 2}
    for args, said in (
        ({}, "day"),
        ({"day": date(2026, 1, 1), "sise": 1}, "sise"),
        ({"day": 5}, "day"),
        ([1], "expected a dict by parameter name"),
    ):
        with pytest.raises(InvalidArguments, match=said):
            q.schedule("@daily", name=f"bad{said}", args=args)(report)  # type: ignore[arg-type]
    assert set(q.schedules) == {"report"}


def test_the_argument_for_the_tick(q: JobQ) -> None:
    @q.schedule("@daily", tick_argument="scheduled_for", args={"size": 2})
    @q.task
    def report(scheduled_for: datetime, size: int) -> None: ...

    assert q.schedules["report"].args == {"size": 2}

    @q.task
    def other(day: int) -> None: ...

    with pytest.raises(InvalidArguments, match=r"tick_argument='day' passes a datetime"):
        q.schedule("@daily", tick_argument="day")(other)
    with pytest.raises(InvalidArguments, match="when"):
        q.schedule("@daily", tick_argument="when", args={"day": 1})(other)
    with pytest.raises(InvalidOption, match="is given by args as well"):
        q.schedule("@daily", tick_argument="day", args={"day": 1})(other)


def test_a_name_is_one_schedule(q: JobQ) -> None:
    @q.schedule("@daily")
    @q.task
    def report() -> None: ...

    with pytest.raises(
        TaskDefinitionError, match="schedule 'report' is taken, by one of task 'report': pass name=… to one of them"
    ):
        q.schedule("@hourly")(report)


def test_bad_values_are_refused_where_they_are_written(q: JobQ) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"cron": "61 * * * *"}, "its minute '61'"),
        ({"cron": "0 7 * * *", "timezone": "Berlin"}, "did you mean Europe/Berlin"),
        ({"every": timedelta(0)}, "every=0 seconds"),
        ({}, "expected either a cron expression"),
    ]
    for values, said in bad:
        with pytest.raises(InvalidOption, match=said):
            q.schedule(**values)

    @q.task
    def task() -> None: ...

    with pytest.raises(InvalidOption, match="missed='never'"):
        q.schedule("@daily", missed="never")(task)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="max_missed=0"):
        q.schedule("@daily", max_missed=0)(task)


def test_what_is_no_task_is_refused(q: JobQ) -> None:
    @q.task
    def task() -> None: ...

    for target in (task.options(priority=1), "task", None):
        with pytest.raises(TaskDefinitionError, match="is no task"):
            q.schedule("@daily")(target)  # type: ignore[type-var]

    with pytest.raises(TaskDefinitionError, match="belongs to another JobQ"):
        JobQ().schedule("@daily")(task)

    @q.schedule("@daily")
    def forgotten() -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"forgotten: that is no task; put @q.task on it as well"):
        _ = q.schedules


# --- In the job --------------------------------------------------------------------------------------------------------


def test_a_job_knows_its_tick() -> None:
    job = CurrentJob(
        id=1,
        task="t",
        queue="default",
        attempt=1,
        max_attempts=10,
        headers={"jobq.schedule": "nightly", "jobq.tick": "2026-01-31T06:00:00+00:00"},
    )
    assert (job.schedule, job.tick) == ("nightly", datetime(2026, 1, 31, 6, tzinfo=UTC))


@pytest.mark.parametrize("headers", [{}, {"jobq.tick": "soon", "jobq.schedule": 1}, {"jobq.tick": None}])
def test_another_job_has_none(headers: dict[str, Any]) -> None:
    job = CurrentJob(id=1, task="t", queue="default", attempt=1, max_attempts=10, headers=headers)
    assert (job.schedule, job.tick) == (None, None)


def test_following_stops_at_the_number() -> None:
    assert following(Every(timedelta(days=1)), START, 2) == [
        datetime(2026, 3, 29, tzinfo=UTC),
        datetime(2026, 3, 30, tzinfo=UTC),
    ]
