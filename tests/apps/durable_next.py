"""The next version of a durable application: which of its tasks fit what is stored?"""

from __future__ import annotations

import os

from jobq import JobQ, step

q = JobQ()
VERSION = os.environ.get("DURABLE_VERSION", "1")
called: list[str] = []


def load(number: int) -> int:
    called.append(f"load {number}")
    return number


def load_text(number: int) -> str:
    return str(number)


load_text.__name__ = "load"


@q.task(durable=True)
def same(number: int) -> int:
    found = step.run(load, number)
    step.wait_for("go", bool)
    return found + step.run(load, number + 1)


@q.task(durable=True)
async def other_arguments(number: int) -> int:
    found = await step.run_async(load, number if VERSION == "1" else number + 100)
    await step.wait_for_async("go", bool)
    return found


@q.task(durable=True)
def with_a_new_step(number: int) -> int:
    if VERSION != "1" and step.since("two"):
        step.options(name="new").run(load, number)
    found = step.run(load, number)
    step.wait_for("go", bool)
    return found


@q.task(durable=True)
def other_type(number: int) -> object:
    found = step.run(load if VERSION == "1" else load_text, number)
    step.wait_for("go", bool)
    return found


@q.task
def plain() -> None: ...
