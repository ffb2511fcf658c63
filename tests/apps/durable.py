"""An application whose tasks work in steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from jobq import Fail, JobQ, current_job, step
from tests.support.waiting import wait_until, wait_until_async

q = JobQ()


@dataclass
class Approval:
    by: str
    amount: int = 0


class Declined(Exception):
    """An error of a step, with an attribute."""

    def __init__(self, code: int) -> None:
        super().__init__(f"declined with {code}")
        self.code = code


def trace(path: str, what: str) -> int:
    """Append a line to a file, and return how many it has."""
    with Path(path).open("a") as file:
        file.write(f"{what}\n")
    return len(Path(path).read_text().splitlines())


def exists(path: str) -> bool:
    return Path(path).exists()


async def trace_async(path: str, what: str) -> int:
    return trace(path, what)


@q.task
def double(value: int) -> int:
    return 2 * value


@q.task
def broken(value: int) -> int:
    raise Fail(f"cannot take {value}")


@q.task(durable=True, backoff=[0.05])
def line(path: str, fail_at: int = -1) -> list[int]:
    """Three steps; raises once before the step `fail_at`."""
    found = []
    for number in range(3):
        if number == fail_at and current_job().attempt == 1:
            raise RuntimeError(f"before step {number}")
        found.append(step.run(trace, path, f"step {number}"))
    return found


@q.task(durable=True, backoff=[0.05])
async def line_async(path: str, fail_at: int = -1) -> list[int]:
    found = []
    for number in range(3):
        if number == fail_at and current_job().attempt == 1:
            raise RuntimeError(f"before step {number}")
        found.append(await step.run_async(trace_async, path, f"step {number}"))
    return found


@q.task(durable=True)
def sleeper(path: str, seconds: float) -> str:
    step.run(trace, path, "before")
    step.sleep(seconds)
    step.run(trace, path, "after")
    return "awake"


@q.task(durable=True)
async def sleeper_async(path: str, seconds: float) -> str:
    await step.run_async(trace_async, path, "before")
    await step.sleep_async(seconds)
    await step.run_async(trace_async, path, "after")
    return "awake"


@q.task(durable=True)
def approve(path: str, timeout: float | None = None) -> str:
    step.run(trace, path, "asked")
    if timeout is None:
        return f"approved by {step.wait_for('approval', Approval).by}"
    found = step.wait_for("approval", Approval, timeout=timeout)
    return "timed out" if found is None else f"approved by {found.by}"


@q.task(durable=True)
async def approve_async(count: int) -> list[str]:
    return [(await step.wait_for_async("approval", Approval)).by for _ in range(count)]


@q.task(durable=True)
def parent(value: int) -> int:
    return int(step.invoke(double.job(value))) + 1


@q.task(durable=True)
async def parent_async(values: list[int]) -> list[int]:
    return list(await step.gather_async(*(step.invoke_async(double.job(value)) for value in values)))


@q.task(durable=True)
def parent_of_broken(value: int) -> str:
    try:
        return str(step.invoke(broken.job(value)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def decline(path: str) -> int:
    trace(path, "declined")
    raise Declined(7)


@q.task(durable=True, backoff=[0.05])
def catching(path: str, crash: bool = False) -> str:
    """Catches the error of a step and goes on; a replay sees the same error."""
    try:
        step.run(decline, path)
    except Declined as error:
        code = error.code
    else:
        code = 0
    step.run(trace, path, "went on")
    if crash and current_job().attempt == 1:
        raise RuntimeError("after the step")
    return f"code {code}"


def flaky(path: str, good_at: int) -> int:
    if (tries := trace(path, "try")) < good_at:
        raise Declined(tries)
    return tries


@q.task(durable=True)
def stubborn(path: str, good_at: int, attempts: int) -> int:
    return step.options(max_attempts=attempts, backoff=[0.05]).run(flaky, path, good_at)


@q.task(durable=True)
def together(path: str) -> list[object]:
    return list(
        step.gather(
            lambda: step.run(trace, path, "branch"),
            lambda: step.wait_for("approval", Approval).by,
            lambda: step.invoke(double.job(4)),
        )
    )


def insert(value: int) -> int:
    current_job().connection.execute("INSERT INTO public.effects VALUES (%s)", (value,))
    return value


async def insert_async(value: int) -> int:
    await current_job().async_connection.execute("INSERT INTO public.effects VALUES (%s)", (value,))
    return value


@q.task(durable=True, backoff=[0.05])
def effects(upto: int, fail: bool = False) -> int:
    for value in range(upto):
        step.options(transactional=True).run(insert, value)
    if fail and current_job().attempt == 1:
        raise RuntimeError("after the effects")
    return upto


@q.task(durable=True, backoff=[0.05])
async def effects_async(upto: int, fail: bool = False) -> int:
    for value in range(upto):
        await step.options(transactional=True).run_async(insert_async, value)
    if fail and current_job().attempt == 1:
        raise RuntimeError("after the effects")
    return upto


@q.task(durable=True)
def kill_once(path: str) -> int:
    """Kills its runner once, between two steps."""
    first = step.run(trace, path, "first")
    if not Path(f"{path}.killed").exists():
        Path(f"{path}.killed").touch()
        os.abort()
    return first + step.run(trace, path, "second")


@q.task(durable=True)
def blocked(path: str) -> str:
    """Holds its slot in its second step until a file is there."""
    step.run(trace, path, "first")
    step.run(hold, path)
    step.run(trace, path, "third")
    return "done"


def hold(path: str) -> None:
    trace(path, "holds")
    job = current_job()
    wait_until(lambda: job.cancelled or Path(f"{path}.go").exists(), what="the file, or a cancellation", timeout=60)


def hold_on(path: str) -> None:
    """Like `hold`, and does not hear that it is cancelled."""
    trace(path, "holds")
    wait_until(lambda: Path(f"{path}.go").exists(), what="the file", timeout=60)


@q.task(durable=True)
def swallowing(path: str) -> str:
    """Catches what it must not."""
    try:
        step.sleep(3600)
    except BaseException:
        return "caught"
    return "slept"


@q.task
def plain() -> int:
    return step.run(trace, "/dev/null", "never")


@q.task(durable=True, backoff=[0.05], max_attempts=2)
def saga(path: str, last: str = "fail", undo_fails: int = 0) -> str:
    """Two steps that can be undone; then it fails, waits for ever, or ends well."""

    def undo_first(number: int) -> None:
        if len([line for line in Path(path).read_text().splitlines() if line == "undo fails"]) < undo_fails:
            trace(path, "undo fails")
            raise RuntimeError("cannot undo yet")
        trace(path, f"undo first {number}")

    step.options(undo=undo_first).run(trace, path, "first")
    step.options(undo=lambda number: trace(path, f"undo second {number}")).run(trace, path, "second")
    if last == "fail":
        raise RuntimeError("no way")
    if last == "wait":
        step.wait_for("never", str)
    if last == "sleep":
        step.sleep(3600)
    if last == "child":
        step.invoke(sleeper.job("/dev/null", 3600.0))
    if last == "pay":
        step.invoke(double.job(4), undo=lambda paid: trace(path, f"undo child {paid}"))
        raise RuntimeError("no way")
    if last == "gather":
        step.gather(lambda: step.wait_for("never", str), lambda: step.run(hold_on, path))
    if last == "hold":
        step.run(hold, path)
        step.run(trace, path, "never")
    return "good"


@q.task(durable=True, backoff=[0.05], max_attempts=2)
async def saga_async(path: str, last: str = "fail") -> str:
    async def undo(number: int) -> None:
        trace(path, f"undo {number}")

    await step.options(undo=undo).run_async(trace_async, path, "first")
    await step.options(undo=undo).run_async(trace_async, path, "second")
    if last == "fail":
        raise RuntimeError("no way")
    if last == "pause" and exists(f"{path}.cancelled"):
        job = current_job()
        await wait_until_async(lambda: job.cancelled, what="a heartbeat that repeats the cancellation")
    if last != "good":
        await step.wait_for_async("never", str)
    return "good"


@q.task(durable=True)
def waits_for_child(seconds: float) -> str:
    return str(step.invoke(sleeper.job("/dev/null", seconds)))


@q.task(durable=True)
def beginning_again(path: str, begun: int, rounds: int) -> int:
    """Begins again `rounds` times, and takes a signal at the end."""
    total = begun
    for number in range(3):
        total += step.run(double.function, number)
    if rounds:
        step.restart(beginning_again.job(path, total, rounds - 1))
    return int(total) + step.wait_for("last", int)


@q.task(durable=True)
async def beginning_again_async(begun: int, rounds: int) -> int:
    total = begun + await step.run_async(double.function, 3)
    if rounds:
        await step.restart_async(beginning_again_async.job(total, rounds - 1))
    return int(total)
