"""One application in several versions, by ROLLING in the environment: for rolling deployments."""

from __future__ import annotations

import os

from jobq import JobQ

OLD, NEW, OTHER = JobQ(), JobQ(), JobQ()

for each in (OLD, NEW, OTHER):

    @each.task
    def always() -> int:
        return 1


@NEW.task
def fresh() -> int:
    return 2


@NEW.task(queue="in-order", groups="ordered")
def fresh_in_order(number: int) -> int:
    return number


@OLD.task(name="send")
def send_old(order: int) -> str:
    return "old"


@NEW.task(name="send")
def send_new(order: int, copy_to: str = "") -> str:
    return "new"


@OTHER.task(name="send")
def send_other(order: int, priority: int = 0) -> str:
    return "other"


@OLD.task(name="count")
def count_old(number: int) -> int:
    return number


@NEW.task(name="count")
def count_new(number: int | str) -> int | str:
    return number


q = {"old": OLD, "new": NEW, "other": OTHER, "none": JobQ()}[os.environ.get("ROLLING", "old")]
