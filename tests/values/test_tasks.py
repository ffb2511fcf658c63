"""Tasks: definition, options, calling; what a job carries. No database."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobq import (
    AppImportError,
    AsyncTask,
    Backoff,
    Cancel,
    ConfigurationError,
    CurrentJob,
    InvalidArguments,
    InvalidOption,
    JobQ,
    NewJob,
    NoCurrentJob,
    NotTransactional,
    Retry,
    Snooze,
    Task,
    TaskDefinitionError,
    UnknownTask,
    current_job,
)
from jobq.app import load
from jobq.context import reset_current_job, set_current_job, use_current_job
from jobq.job import JobOptions


@pytest.fixture
def q() -> JobQ:
    return JobQ("postgresql://nobody@127.0.0.1:1/nothing")


def test_a_task_stays_callable(q: JobQ) -> None:
    @q.task
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    @q.task(queue="slow")
    async def add_later(a: int, b: int = 2) -> int:
        return a + b

    assert add(1) == 3
    assert asyncio.run(add_later(1, b=5)) == 6
    assert isinstance(add, Task)
    assert isinstance(add_later, AsyncTask)
    assert (add.is_async, add_later.is_async) == (False, True)
    assert (add.name, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    assert dict(q.tasks) == {"add": add, "add_later": add_later}
    assert q.get_task("add") is add
    with pytest.raises(UnknownTask, match="no task 'ad'; known are: add, add_later"):
        q.get_task("ad")


def test_a_job_carries_what_the_task_and_its_options_say(q: JobQ) -> None:
    @q.task(queue="mail", priority=7, max_attempts=3, timeout=timedelta(minutes=1), headers={"a": 1, "b": 1})
    def send(order: int) -> None: ...

    assert send.job(5) == NewJob(
        JobOptions(
            task="send",
            queue="mail",
            priority=7,
            max_attempts=3,
            timeout=60.0,
            headers={"a": 1, "b": 1},
        ),
        '{"order":5}',
    )
    at = datetime(2030, 1, 1, tzinfo=UTC)
    urgent = send.options(
        queue="fast",
        priority=9,
        max_attempts=1,
        timeout=2,
        headers={"b": 2},
        run_at=at,
        key="k",
        key_period=timedelta(hours=1),
        on_conflict="raise",
    )
    assert urgent.job(order=6) == NewJob(
        JobOptions(
            task="send",
            queue="fast",
            priority=9,
            max_attempts=1,
            timeout=2.0,
            headers={"a": 1, "b": 2},
            run_at=at,
            key="k",
            key_period=3600.0,
            on_conflict="raise",
        ),
        '{"order":6}',
    )
    assert send.options(delay=timedelta(seconds=90)).job(1).options.delay == 90
    assert send.options(key="k", key_holds="until_started").job(1).options.key_holds == "until_started"


@pytest.mark.parametrize("text", ['{"a":1},{"b":2}', '{"a":1', "", "[1]", "1", "null"])
def test_a_job_made_by_hand_has_one_object_of_arguments(text: str) -> None:
    """In a bulk the texts are joined: two objects in one would give the next job the arguments of this one."""
    assert NewJob(JobOptions(task="t"), '{"a":1}').args_json == '{"a":1}'
    with pytest.raises(InvalidArguments, match="args_json="):
        NewJob(JobOptions(task="t"), text)


def test_transactional_is_a_truth(q: JobQ) -> None:
    @q.task(transactional=True)
    def pay() -> None: ...

    assert pay.transactional
    assert not q.task(name="other")(lambda: None).transactional
    with pytest.raises(TaskDefinitionError, match=r"shop: transactional='yes': expected True or False"):
        q.task(name="shop", transactional="yes")(lambda: None)  # type: ignore[call-overload]


@pytest.mark.parametrize("of", ["connection", "session", "async_connection", "async_session"])
def test_a_job_without_a_transaction_says_how_to_have_one(of: str) -> None:
    job = CurrentJob(id=1, task="send", queue="q", attempt=1, max_attempts=1)
    with pytest.raises(NotTransactional, match=rf"current_job\(\)\.{of}: task 'send'.*@q.task\(transactional=True\)"):
        getattr(job, of)


def test_a_wrong_call_is_a_type_error_before_any_connection(q: JobQ) -> None:
    @q.task
    def send(order: int) -> None: ...

    with pytest.raises(TypeError, match="send: order='5'"):
        send.submit("5")  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match=r"send: .*'order'; it takes \(order"):
        send.options(key="k").enqueue(object())  # type: ignore[call-arg, arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": ""}, "key='': expected text of 1 to 500"),
        ({"key": "x" * 501}, "key of 501 characters"),
        ({"key": "a\0b"}, "NUL"),
        ({"key": "\ud800"}, "surrogate"),
        ({"key": 17}, "key=17"),
        ({"key": "k", "key_holds": "forever"}, "key_holds='forever': expected one of period, until_finished"),
        ({"key": "k", "on_conflict": "ignore"}, "on_conflict='ignore': expected one of return"),
        ({"key": "k", "key_period": 0}, "key_period=0.0"),
        ({"key": "k", "key_period": "7 days"}, "key_period='7 days'"),
        ({"key": "k", "key_period": 60, "key_holds": "until_finished"}, "key_period is for"),
        ({"on_conflict": "raise"}, "pass key="),
        ({"key_holds": "until_started"}, "pass key="),
        ({"delay": -1}, "delay=-1.0"),
        ({"delay": timedelta(seconds=-1)}, "delay=-1.0"),
        ({"delay": float("nan")}, "delay=nan"),
        ({"delay": float("inf")}, "delay=inf"),
        ({"delay": 1e12}, "delay=1000000000000.0"),
        ({"delay": True}, "delay=True"),
        ({"run_at": datetime(2030, 1, 1)}, r"run_at=datetime.*has no time zone"),
        ({"run_at": "tomorrow"}, "run_at='tomorrow'"),
        ({"run_at": datetime(2030, 1, 1, tzinfo=UTC), "delay": 5}, "run_at and delay"),
        ({"priority": 10}, "priority=10: expected a whole number from 0 to 9"),
        ({"priority": -1}, "priority=-1"),
        ({"priority": True}, "priority=True"),
        ({"priority": 1.5}, "priority=1.5"),
        ({"max_attempts": 0}, "max_attempts=0"),
        ({"max_attempts": 2**31}, "max_attempts"),
        ({"timeout": 0}, "timeout=0.0"),
        ({"timeout": "1m"}, "timeout='1m'"),
        ({"queue": ""}, "queue=''"),
        ({"queue": "q" * 101}, "queue of 101 characters"),
        ({"queue": "a\0"}, "NUL"),
        ({"headers": ["a"]}, "headers="),
        ({"headers": {"a": float("nan")}}, r"headers\['a'\]=nan"),
        ({"headers": {1: "a"}}, "with text as keys"),
        ({"headers": {"a": object()}}, "type object"),
        ({"headers": {"a": (1, 2)}}, r"headers\['a'\]=\(1, 2\) would be read as \[1, 2\]"),
        ({"headers": {"a": {1: 2}}}, r"headers\['a'\]=\{1: 2\} would be read as \{'1': 2\}"),
        ({"headers": {"a": "x" * 70_000}}, "headers: 70008 bytes"),
    ],
)
def test_options_that_cannot_be(q: JobQ, options: dict[str, Any], said: str) -> None:
    @q.task
    def send(order: int) -> None: ...

    with pytest.raises(InvalidOption, match=said) as raised:
        send.options(**options)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": ""}, "task='': expected text of 1 to 200"),
        ({"name": "n" * 201}, "task of 201 characters"),
        ({"queue": ""}, "send: queue=''"),
        ({"priority": 10}, "send: priority=10"),
        ({"max_attempts": 0}, "send: max_attempts=0"),
        ({"timeout": -1}, "send: timeout=-1"),
        ({"timeout": "soon"}, "send: timeout='soon'"),
        ({"headers": {"a": float("nan")}}, "send: headers"),
        ({"retry_on": ("OSError",)}, "send: retry_on=.*exception classes"),
        ({"no_retry_on": (int,)}, "send: no_retry_on="),
    ],
)
def test_definitions_that_cannot_be(q: JobQ, options: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskDefinitionError, match=said):

        @q.task(**options)  # type: ignore[untyped-decorator]  # it could be a batch task
        def send(order: int) -> None: ...

    assert not q.tasks


def test_names_are_taken_once(q: JobQ) -> None:
    @q.task
    def send(order: int) -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"task 'send' is taken by .*send: pass name=… to one of them"):
        q.task(send.function)
    again = q.task(name="send.again")(send.function)
    assert again.name == "send.again"
    with pytest.raises(TaskDefinitionError, match="has no name"):
        q.task(lambda: None)
    assert q.task(name="empty")(lambda: None).name == "empty"


def test_annotations_of_a_task_may_mean_local_names(q: JobQ) -> None:
    from dataclasses import dataclass

    @dataclass
    class Local:
        n: int

    @q.task
    def bare(thing: Local) -> None: ...

    @q.task(queue="x")
    def with_options(thing: Local) -> None: ...

    for task in (bare, with_options):
        assert task.decode_arguments(task.job(Local(1)).args_json) == {"thing": Local(1)}


def test_backoff_is_exponential_capped_and_jittered() -> None:
    backoff = Backoff(base=2, cap=60)
    assert [backoff.longest(n) for n in range(1, 8)] == [2, 4, 8, 16, 32, 60, 60]
    assert backoff.longest(100_000) == 60
    drawn = [backoff.delay(4) for _ in range(200)]
    assert all(0 <= delay <= 16 for delay in drawn)
    assert min(drawn) < 4 < 12 < max(drawn)


@pytest.mark.parametrize(
    "options", [{"base": 0}, {"base": 10, "cap": 5}, {"cap": float("inf")}, {"base": float("nan")}]
)
def test_backoff_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="Backoff"):
        Backoff(**options)


def test_backoff_by_a_list() -> None:
    backoff = Backoff([10, timedelta(minutes=1), 600.5])
    assert [backoff.delay(n) for n in (0, 1, 2, 3, 4, 1000)] == [10, 10, 60, 600.5, 600.5, 600.5]
    drawn = {Backoff([10], jitter=True).delay(1) for _ in range(50)}
    assert len(drawn) > 1
    assert all(0 <= delay <= 10 for delay in drawn)


def test_backoff_by_a_function() -> None:
    backoff = Backoff(lambda attempt: timedelta(minutes=attempt))
    assert [backoff.delay(n) for n in (1, 2)] == [60, 120]
    for said in (-1, "soon", None, float("nan"), True):
        with pytest.raises(InvalidOption, match="expected a number of seconds"):
            Backoff(lambda attempt, said=said: said).delay(1)  # type: ignore[misc]


def test_backoff_without_jitter() -> None:
    backoff = Backoff(base=2, cap=10, jitter=False)
    assert [backoff.delay(n) for n in (1, 2, 3, 4)] == [2, 4, 8, 10]


def test_the_default_policy_takes_17_minutes() -> None:
    """What the documents promise of ten attempts."""
    assert sum(Backoff().longest(n) for n in range(1, 10)) == 1022


async def _soon(attempt: int) -> float:
    return 1.0


@pytest.mark.parametrize("delays", [[], "10", [-1], ["10"], [True], 10, _soon, lambda: 1, [float("inf")], {"a": 1}])
def test_delays_that_cannot_be(delays: Any, q: JobQ) -> None:
    with pytest.raises(InvalidOption, match="Backoff"):
        Backoff(delays)
    with pytest.raises(TaskDefinitionError, match="Backoff"):
        q.task(name="t", backoff=delays)(lambda: None)


def test_delays_exclude_base_and_cap() -> None:
    with pytest.raises(InvalidOption, match="delays and base or cap are both given"):
        Backoff([1, 2], cap=10)


def test_a_task_takes_delays_as_they_are(q: JobQ) -> None:
    @q.task(backoff=[5, 6])
    def listed() -> None: ...

    @q.task(backoff=lambda attempt: attempt * 7.0)
    def computed() -> None: ...

    assert [listed.retry_delay(OSError(), n) for n in (1, 2, 3)] == [5, 6, 6]
    assert computed.retry_delay(OSError(), 2) == 14


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), "30", True, 366 * 86400, [1]])
def test_a_retry_or_snooze_that_is_no_duration(after: Any) -> None:
    with pytest.raises(ValueError, match="expected a number of seconds between 0 and one year"):
        Retry(after=after)
    with pytest.raises(ValueError, match="expected a number of seconds between 0 and one year"):
        Snooze(after)


def test_a_retry_and_a_snooze_take_a_timedelta() -> None:
    assert Retry(after=timedelta(minutes=2)).after == 120
    assert Snooze(timedelta(minutes=2)).seconds == 120
    assert Retry().after is None
    assert str(Retry(after=1.5)) == "retry in 1.5 s"


def test_which_errors_are_retried(q: JobQ) -> None:
    @q.task(retry_on=(OSError, ValueError), no_retry_on=(FileNotFoundError,), backoff=Backoff(base=1, cap=1))
    def send() -> None: ...

    assert 0 <= (send.retry_delay(OSError(), 1) or 0) <= 1
    assert send.retry_delay(UnicodeError(), 1) is not None
    assert send.retry_delay(FileNotFoundError(), 1) is None
    assert send.retry_delay(KeyError(), 1) is None
    assert send.retry_delay(KeyboardInterrupt(), 1) is None


def test_the_current_job() -> None:
    with pytest.raises(NoCurrentJob, match="no job is being run here"):
        current_job()
    steps: list[tuple[int, int | None]] = []
    job = CurrentJob(
        id=1,
        task="t",
        queue="q",
        attempt=2,
        max_attempts=3,
        is_cancelled=lambda: True,
        report_progress=lambda done, total: steps.append((done, total)),
    )
    with use_current_job(job):
        assert current_job() is job
        assert current_job().cancelled
        current_job().progress(3)
        current_job().progress(3, 10)
    assert steps == [(3, None), (3, 10)]
    with pytest.raises(LookupError):
        current_job()
    assert str(Cancel("no")) == "no"


def test_the_current_job_is_made_when_it_is_first_asked_for_and_once() -> None:
    made: list[CurrentJob] = []

    def make() -> CurrentJob:
        made.append(CurrentJob(id=1, task="t", queue="q", attempt=1, max_attempts=1))
        return made[-1]

    token = set_current_job(make)
    try:
        assert made == []
        assert current_job() is current_job()
        assert asyncio.run(asyncio.to_thread(current_job)) is made[0]
    finally:
        reset_current_job(token)
    assert len(made) == 1
    with pytest.raises(NoCurrentJob):
        current_job()


def test_settings_can_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOBQ_DATABASE_URL", raising=False)
    q = JobQ(max_args_bytes=20)

    @q.task
    def send(text: str) -> None: ...

    with pytest.raises(InvalidArguments, match="at most 20"):
        send.job("x" * 20)
    with pytest.raises(ConfigurationError, match="JOBQ_DATABASE_URL"):
        send.submit("x")
    q.configure(max_args_bytes=100, schema="other")
    assert send.job("x" * 20)
    assert q.settings.schema == "other"
    with pytest.raises(ConfigurationError, match="unknown setting"):
        q.configure(pool=3)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    (tmp_path / "jobq_test_shop.py").write_text(
        "from jobq import JobQ\nclass space:\n  inner = JobQ()\nq = JobQ()\nx = 1\n"
    )
    (tmp_path / "jobq_test_broken.py").write_text("1 / 0\n")
    (tmp_path / "jobq_test_lacking.py").write_text("import jobq_test_absent\n")
    return tmp_path


@pytest.mark.usefixtures("modules")
def test_load_finds_an_application_in_the_working_directory() -> None:
    assert isinstance(load("jobq_test_shop:q"), JobQ)
    assert isinstance(load("jobq_test_shop:space.inner"), JobQ)


@pytest.mark.usefixtures("modules")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("jobq_test_shop", "expected module:attribute"),
        (":q", "expected module:attribute"),
        ("jobq_test_shop:x", "is no JobQ; did you mean jobq_test_shop:q"),
        ("jobq_test_shop:r", "did you mean jobq_test_shop:q"),
        ("jobq.errors:q", "the module has none"),
        ("jobq_test_nowhere:q", "no module 'jobq_test_nowhere'"),
        ("jobq_test_shop.sub:q", "importing jobq_test_shop.sub raised|no module"),
        ("jobq_test_broken:q", "importing jobq_test_broken raised ZeroDivisionError"),
        ("jobq_test_lacking:q", "importing jobq_test_lacking raised ModuleNotFoundError.*jobq_test_absent"),
    ],
)
def test_load_says_what_is_wrong(spec: str, said: str) -> None:
    with pytest.raises(AppImportError, match=said):
        load(spec)


def test_the_groups_of_a_queue_have_one_rule() -> None:
    q = JobQ()

    @q.task(queue="a", groups="ordered")
    def one() -> None: ...

    @q.task(queue="a")
    def silent() -> None: ...

    @q.task(queue="a", groups="ordered:hold")
    def same() -> None: ...

    @q.task(queue="b", groups="fair:3")
    def elsewhere() -> None: ...

    assert (str(one.groups), silent.groups, str(elsewhere.groups)) == ("ordered", None, "fair:3")
    with pytest.raises(TaskDefinitionError, match=r"'other' has groups='fair' for queue 'a', and task 'one' 'ordered'"):

        @q.task(queue="a", groups="fair")
        def other() -> None: ...

    assert "other" not in q.tasks
    with pytest.raises(TaskDefinitionError, match=r"wrong: groups='sorted': expected ordered, ordered:pass, limited:N"):

        @q.task(groups="sorted")
        def wrong() -> None: ...
