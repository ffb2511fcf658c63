"""Code that has changed between two executions of a job: what goes on, what is refused, and `step.since`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobq import JobFailed, StepChanged, step
from tests.support.inline_durable import Durable, durable, fail_once

calls: list[str] = []


@pytest.fixture
def run(database_url: str) -> Iterator[Durable]:
    calls.clear()
    with durable(database_url) as found:
        yield found


def effect(value: int = 0) -> int:
    calls.append(f"effect {value}")
    return value


def other(value: int = 0) -> int:
    calls.append(f"other {value}")
    return value


async def effect_async(value: int = 0) -> int:
    return effect(value)


class Code:
    """A task whose code is replaced between its executions: it waits for the signal `go`, once, at the end of the first."""

    def __init__(self, run: Durable, before: Callable[[], Any]) -> None:
        self.run = run
        self.body = before

        def task() -> Any:
            return self.body()

        self.job = run.start(task)

    def replaced(self, after: Callable[[], Any]) -> Any:
        self.body = after
        self.run.app.send_signal(None, self.job, "go")
        return self.run.finish(self.job)


def go() -> None:
    step.wait_for("go", type(None))


def two_steps() -> list[int]:
    found = [step.run(effect, 1), step.run(effect, 2)]
    go()
    return found


def test_another_order_is_no_change(run: Durable) -> None:
    def after() -> list[int]:
        go()
        return [step.run(effect, 2), step.run(effect, 1)]

    assert Code(run, two_steps).replaced(after) == [2, 1]
    assert calls == ["effect 1", "effect 2"]


def test_a_step_that_was_removed_is_no_change(run: Durable) -> None:
    def after() -> list[int]:
        found = [step.run(effect, 2)]
        go()
        return found

    assert Code(run, two_steps).replaced(after) == [2]
    assert calls == ["effect 1", "effect 2"]


def test_a_step_of_another_name_before_stored_ones_is_run(run: Durable) -> None:
    def after() -> list[int]:
        found = [step.run(other, 5), step.run(effect, 1), step.run(effect, 2)]
        go()
        return found

    assert Code(run, two_steps).replaced(after) == [5, 1, 2]
    assert calls == ["effect 1", "effect 2", "other 5"]


def test_a_renamed_function_is_run_again_unless_it_keeps_its_name(run: Durable) -> None:
    def renamed() -> list[int]:
        found = [step.options(name="effect").run(other, 1), step.run(other, 2)]
        go()
        return found

    assert Code(run, two_steps).replaced(renamed) == [1, 2]
    assert calls == ["effect 1", "effect 2", "other 2"]


def test_changed_arguments_fail_the_job_and_former_code_goes_on(run: Durable) -> None:
    def changed() -> list[int]:
        return [step.run(effect, 1), step.run(effect, 3)]

    code = Code(run, two_steps)
    with pytest.raises(JobFailed) as raised:
        code.replaced(changed)
    assert (
        f"job {code.job.id}, task 'task-1': step 'effect' is stored with the arguments "
        '{"value":2}, and is now called with {"value":3}: has the code changed? Call it with the former arguments, '
        "give the new step another name (step.options(name=…)), or branch by step.since(…)"
    ) in str(raised.value)
    assert [error.partition(": ")[0] for error in run.errors(code.job)] == ["jobq.errors.StepChanged"]
    code.body = two_steps
    assert run.go_on(code.job) == [1, 2]
    assert calls == ["effect 1", "effect 2"]


def test_another_return_annotation(run: Durable) -> None:
    def effect() -> str:  # the name of the stored step
        return "seven"

    def before() -> str:
        def effect() -> int:
            return 7

        step.run(effect)
        go()
        return "before"

    code = Code(run, before)
    with pytest.raises(JobFailed, match="Input should be a valid string"):
        code.replaced(lambda: step.run(effect))


def test_a_new_name_admits_new_arguments(run: Durable) -> None:
    def after() -> list[int]:
        found = [step.run(effect, 1), step.options(name="effect of 2026").run(effect, 3)]
        go()
        return found

    assert Code(run, two_steps).replaced(after) == [1, 3]
    assert calls == ["effect 1", "effect 2", "effect 3"]


def test_the_exception_has_both_arguments(run: Durable) -> None:
    seen: list[tuple[str, str, str]] = []

    def changed() -> None:
        try:
            step.run(effect, 9)
        except StepChanged as error:
            seen.append((error.name, error.stored, error.given))
            raise

    with pytest.raises(JobFailed):
        Code(run, two_steps).replaced(changed)
    [(name, stored, given)] = seen
    assert (name, given) == ("effect", '{"value":9}')
    assert stored in ('{"value":1}', '{"value":2}')


def test_a_changed_sleep_is_found(run: Durable) -> None:
    def before() -> None:
        step.sleep(1)
        go()

    def after() -> None:
        step.sleep(2)

    code = Code(run, lambda: None)
    code = Code(run, before)
    run.tester.advance(seconds=2)
    run.tester.drain()
    with pytest.raises(JobFailed, match="step 'sleep' is stored with the arguments"):
        code.replaced(after)


def test_a_changed_child_is_found(run: Durable) -> None:
    @run.app.task(name="double")
    def double(value: int) -> int:
        return 2 * value

    def before() -> int:
        found = step.invoke(double, 1)
        go()
        return found

    def after() -> int:
        return step.invoke(double, 2)

    code = Code(run, before)
    with pytest.raises(JobFailed, match="step 'double' is stored with the arguments"):
        code.replaced(after)


def test_since(run: Durable) -> None:
    answers: list[bool] = []

    def former() -> str:
        step.run(effect, 1)
        go()
        step.run(effect, 2)
        go()
        return "former"

    def latter() -> str:
        step.run(effect, 1)
        answers.append(step.since("a third step"))
        if answers[-1]:
            step.run(effect, 3)
        go()
        step.run(effect, 2)
        go()
        return "latter"

    old = Code(run, former)
    old.body = latter
    new = Code(run, latter)
    for job in (old.job, new.job, old.job, new.job):
        run.app.send_signal(None, job, "go")
        run.tester.drain()
    assert old.job.result(timeout=0) == new.job.result(timeout=0) == "latter"
    # The new job: its first execution and two replays; the old one: two replays.
    assert sorted(answers) == [False, False, True, True, True]
    assert calls.count("effect 3") == 1


def test_an_answer_of_since_never_changes(run: Durable) -> None:
    answers: list[bool] = []

    def former() -> None:
        step.run(effect, 1)
        step.run(effect, 2)
        go()

    def latter() -> None:
        # All stored steps are asked for before the line at the second execution only.
        if len(answers) == 1:
            step.run(effect, 1)
            step.run(effect, 2)
        answers.append(step.since("later"))
        go()
        go()

    code = Code(run, former)
    code.body = latter
    for _ in range(2):
        run.app.send_signal(None, code.job, "go")
        run.tester.drain()
    assert answers == [False, False]


def test_since_in_an_async_task_and_after_an_error(run: Durable) -> None:
    answers: list[bool] = []

    async def task() -> None:
        answers.append(await step.since_async("begin"))
        await step.run_async(effect_async, 1)
        answers.append(await step.since_async("end"))
        fail_once()

    run.run(task)
    assert answers == [True] * 4


def test_branches_may_come_in_another_order(run: Durable) -> None:
    def before() -> list[int]:
        return list(
            step.gather(
                lambda: step.run(effect, 1),
                lambda: step.run(effect, 2),
                lambda: step.wait_for("go", int),
            )
        )

    def after() -> list[int]:
        return list(
            step.gather(
                lambda: step.wait_for("go", int),
                lambda: step.run(effect, 2),
                lambda: step.run(effect, 1),
            )
        )

    def task() -> Any:
        return body()

    body = before
    job = run.start(task)
    body = after
    run.app.send_signal(None, job, "go", 7)
    assert run.finish(job) == [7, 2, 1]
    assert calls == ["effect 1", "effect 2"]


@pytest.mark.parametrize("name", [None, "effect"])
def test_a_branch_that_was_not_stored_is_no_change(run: Durable, name: str | None) -> None:
    """Of equal steps with other arguments, only the second is stored: as after a crash."""

    def task() -> list[int]:
        def first() -> int:
            fail_once()
            return step.options(name=name).run(effect, 1)

        return list(step.gather(first, lambda: step.options(name=name).run(effect, 2)))

    assert run.run(task) == [1, 2]
    assert calls == ["effect 2", "effect 1"]
