"""Wrong calls of `step`: each is refused with a sentence that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobq import Cancel, Fail, JobFailed, NotDurable, Retry, Snooze, TaskDefinitionError, current_job, step
from jobq.errors import InvalidArguments, InvalidOption
from tests.support.inline_durable import Durable, durable, fail_once


@pytest.fixture
def run(database_url: str) -> Iterator[Durable]:
    with durable(database_url) as found:
        yield found


def number(value: int = 0) -> int:
    return value


async def number_async(value: int = 0) -> int:
    return value


def returns_a_coroutine() -> Any:
    return number_async()


def generator() -> Iterator[int]:
    yield 1


class Account:
    def close(self, number: int) -> int:
        return number

    def __call__(self) -> int:
        return 1


def positional(value: int, /) -> int:
    return value


def starred(*values: int) -> int:
    return sum(values)


long = "n" * 201
any_step: Any = step
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "lambda": (lambda: step.run(lambda: 1), r"a step is found again by its name, and this has none"),
    "object": (lambda: step.run(Account()), r"this has none: use step.options\(name=…\)"),
    "result": (lambda: any_step.run(number(3)), r"step.run\(3\): expected a function"),
    "class": (lambda: step.run(Account), "it is a class: pass a function that makes the object"),
    "method": (lambda: step.run(Account.close, Account(), 1), "it is a method without its object"),
    "builtin": (lambda: step.run(len, [1]), "it is written in C and has no annotations: call it in a `def` of yours"),
    "generator": (lambda: step.run(generator), "it is a generator: return a list, or take a step for each element"),
    "positional only": (lambda: step.run(positional, 1), "value is positional-only, and arguments are stored by name"),
    "starred": (lambda: step.run(starred, 1), r"\*values has no fixed name to store a value under"),
    "missing argument": (lambda: any_step.run(Account().close), "step Account.close: missing a required argument: 'number'"),
    "wrong argument": (lambda: any_step.run(number, "x"), "step number: value='x': Input should be a valid integer"),
    "async function": (lambda: step.run(number_async), r"it is an `async def`: use `await step.run_async\(…\)`"),
    "coroutine": (lambda: step.run(returns_a_coroutine), "the function has returned the coroutine 'number_async'"),
    "async run": (lambda: step.run_async(number), "step.run_async: task '.*' is a `def`: use step.run$"),
    "async sleep": (lambda: step.sleep_async(1), "use step.sleep$"),
    "async wait": (lambda: step.wait_for_async("a", int), "use step.wait_for$"),
    "async child": (lambda: any_step.invoke_async(3), "use step.invoke$"),
    "async gather": (lambda: step.gather_async(), "use step.gather$"),
    "async since": (lambda: step.since_async("a"), "use step.since$"),
    "long name": (lambda: step.options(name=long), "name of 201 characters: expected text of 1 to 200 characters"),
    "empty name": (lambda: step.options(name=""), "name='': expected text of 1 to 200 characters"),
    "long signal": (lambda: step.wait_for(long, int), "name of 201 characters"),
    "long sleep": (lambda: step.sleep(1, name=long), "name of 201 characters"),
    "long since": (lambda: step.since(long), "name of 201 characters"),
    "negative sleep": (lambda: step.sleep(-1), "step.sleep=-1.0: expected a number of seconds between 0 and 100 years"),
    "text for a sleep": (lambda: any_step.sleep("1"), "step.sleep='1': expected a number of seconds or a timedelta"),
    "infinite sleep": (lambda: step.sleep(float("inf")), "step.sleep=inf"),
    "negative timeout": (lambda: step.wait_for("a", int, timeout=-1), "timeout=-1.0: expected a number of seconds"),
    "no attempts": (lambda: step.options(max_attempts=0), "max_attempts=0"),
    "backoff alone": (lambda: step.options(backoff=[1]), "backoff is for several attempts of the step"),
    "attempts in a transaction": (
        lambda: step.options(max_attempts=2, transactional=True),
        "max_attempts and transactional are both given: pass only one of them",
    ),
    "number for a transaction": (lambda: any_step.options(transactional=1), "transactional=1: expected True or False"),
    "values in gather": (lambda: any_step.gather(number(1)), r"step.gather: 1: expected functions to be called"),
    "function as a child": (lambda: any_step.invoke(number, 1), r"expected a task with its arguments, step.invoke\(task, …\)"),
    "result as a child": (lambda: any_step.invoke(3), r"step.invoke\(3\): expected a task with its arguments"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_says_what_to_do(run: Durable, name: str) -> None:
    call, told = WRONG[name]
    seen: list[Exception] = []

    def task() -> None:
        try:
            call()
        except Exception as error:
            seen.append(error)

    run.run(task)
    [error] = seen
    with pytest.raises(type(error), match=told):
        raise error
    assert isinstance(error, (InvalidArguments, InvalidOption, NotDurable, TaskDefinitionError))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("branch", "told"),
    [
        (
            lambda: number_async(),
            r"step.gather_async: .*: expected awaitables, such as step.run_async\(…\), without `await`",
        ),
        (3, "step.gather_async: 3: expected awaitables"),
    ],
    ids=["lambda", "value"],
)
def test_a_wrong_branch_of_an_async_gather(run: Durable, branch: Any, told: str) -> None:
    async def task() -> str:
        try:
            await step.gather_async(step.run_async(number_async), branch)
        except InvalidOption as error:
            return str(error)
        return "nothing"

    with pytest.raises(InvalidOption, match=told):
        raise InvalidOption(run.run(task))


@pytest.mark.parametrize("call", [lambda: step.run(number), lambda: step.sleep(0), lambda: step.since("a")])
def test_a_sync_step_in_an_async_task(run: Durable, call: Callable[[], Any]) -> None:
    async def task() -> str:
        try:
            call()
        except NotDurable as error:
            return str(error)
        return "nothing"

    assert "is an `async def`: use await step." in run.run(task)


def test_outside_a_job() -> None:
    with pytest.raises(NotDurable, match="no durable job is run here: call it in a task with"):
        step.run(number)
    with pytest.raises(NotDurable, match=r"step\.run_async: no durable job is run here"):
        any_step.run_async(number_async)


def test_a_child_with_a_key_or_a_time(run: Durable) -> None:
    @run.app.task(name="other")
    def other(value: int) -> int:
        return value

    def keyed() -> str:
        try:
            step.invoke(other.options(key="a"), 1)
        except InvalidOption as error:
            return str(error)
        return "nothing"

    def twice() -> str:
        try:
            any_step.invoke(other.job(1), 1)
        except InvalidOption as error:
            return str(error)
        return "nothing"

    assert "the job has key='a': leave it out" in run.run(keyed)
    assert "the job of task 'other' has its arguments: pass none beside it" in run.run(twice)


def test_a_durable_task_is_not_transactional(run: Durable) -> None:
    with pytest.raises(TaskDefinitionError, match="durable and transactional"):
        run.app.task(durable=True, transactional=True)(number)
    with pytest.raises(TaskDefinitionError, match="durable=1: expected True or False"):
        run.task(number, durable=1)


seen: list[str] = []


def decides(what: type[Exception], *args: Any) -> Callable[[], None]:
    def decide() -> None:
        seen.append(what.__name__)
        raise what(*args)

    return decide


def test_a_step_fails_or_cancels_its_job(run: Durable) -> None:
    seen.clear()

    def fails() -> None:
        step.options(max_attempts=5, backoff=[0]).run(decides(Fail, "no stock"))

    def cancels() -> None:
        step.run(decides(Cancel, "not wanted"))

    with pytest.raises(JobFailed, match="no stock"):
        run.run(fails)
    with pytest.raises(JobFailed, match="not wanted"):
        run.run(cancels)
    assert seen == ["Fail", "Cancel"]


@pytest.mark.parametrize("error", [(Snooze, 0), (Retry, 0)])
def test_a_step_that_puts_its_job_back_runs_again(run: Durable, error: tuple[Any, ...]) -> None:
    seen.clear()

    def put_back() -> int:
        if not seen:
            decides(*error)()
        seen.append("again")
        return 7

    def task() -> int:
        return step.run(put_back)

    assert run.run(task) == 7
    assert seen[1:] == ["again"]


def test_a_decision_that_the_task_catches_is_the_same_in_a_replay(run: Durable) -> None:
    seen.clear()

    def task() -> str:
        try:
            step.run(decides(Fail, "no stock"))
        except Fail as error:
            told = str(error)
        step.run(number, 1)
        fail_once()
        return told

    assert run.run(task) == "no stock"
    assert seen == ["Fail"]


def test_a_caught_error_before_a_wait_is_the_same_afterwards(run: Durable) -> None:
    seen.clear()

    def task() -> str:
        try:
            step.run(decides(LookupError, "no such order"))
        except LookupError as error:
            told = str(error)
        step.sleep(60)
        return told

    assert run.run(task) == "no such order"
    assert seen == ["LookupError"]


def test_what_catches_the_end_of_an_execution_fails_the_job(run: Durable) -> None:
    def swallows() -> str:
        try:
            step.sleep(60)
        except BaseException:
            return "caught"
        return "slept"

    def returns_in_finally() -> str:
        try:
            step.sleep(60)
        finally:
            return "left"  # noqa: B012

    for function in (swallows, returns_in_finally):
        with pytest.raises(JobFailed, match="let BaseException through, and do not return in a `finally`"):
            run.run(function)


def test_except_exception_does_not_catch_it_and_finally_runs_at_each_wait(run: Durable) -> None:
    seen.clear()

    def task() -> str:
        try:
            step.sleep(60)
            step.sleep(60)
        except Exception:
            seen.append("except")
        finally:
            seen.append("finally")
        return "slept"

    assert run.run(task) == "slept"
    assert seen == ["finally"] * 3


def test_a_wait_spends_no_attempt(run: Durable) -> None:
    def task() -> list[int]:
        found = []
        for _ in range(5):
            step.sleep(60)
            found.append(current_job().attempt)
        return found

    assert run.run(task, max_attempts=1) == [1] * 5


def test_a_job_that_waits_when_it_expires(run: Durable) -> None:
    def task() -> str:
        step.wait_for("go", int)
        return "went"

    made = run.task(task)
    job = made.options(expires_in=60).submit()
    run.tester.drain()
    run.tester.advance(seconds=61)
    run.app.send_signal(None, job, "go", 1)
    with pytest.raises(JobFailed, match="expired"):
        run.finish(job)
