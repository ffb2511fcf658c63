"""Durable tasks as operators see them: each waits for something else."""

from __future__ import annotations

from dataclasses import dataclass

from jobq import Fail, JobQ, step

q = JobQ()


@dataclass
class Decision:
    by: str
    limit: int = 0


def reserve(order: int) -> dict[str, int]:
    return {"order": order, "items": 3}


def pay(order: int, card_token: str) -> dict[str, str]:
    return {"card_token": card_token, "receipt": f"r-{order}"}


def decline(order: int) -> None:
    raise ConnectionError(f"the bank is away, order {order}")


def revoke_token(reserved: dict[str, int]) -> None:
    """Undoes a reservation."""


def describe(text: str) -> int:
    return len(text)


@q.task
def double(value: int) -> int:
    return 2 * value


@q.task(durable=True)
def order(number: int, timeout: float | None = None) -> str:
    """Reserves and pays, and then waits for an approval."""
    step.run(reserve, number)
    step.run(pay, number, card_token="tok-4711")
    if timeout is None:
        return step.wait_for("approval", Decision).by
    found = step.wait_for("approval", Decision, timeout=timeout)
    return "nobody" if found is None else found.by


@q.task(durable=True)
def refused(number: int) -> None:
    """Reserves, fails, and undoes what it has reserved."""
    step.options(undo=revoke_token).run(reserve, number)
    raise Fail("the customer has no account")


@q.task(durable=True)
def nap(seconds: float, name: str | None = None) -> str:
    step.sleep(seconds, name=name)
    return "awake"


@q.task(durable=True)
def parent(value: int) -> int:
    return int(step.invoke(double.job(value))) + 1


@q.task(durable=True)
def persistent(number: int) -> None:
    step.options(max_attempts=9, backoff=[3600]).run(decline, number)


@q.task(durable=True)
def several() -> list[object]:
    """Waits for five things at once."""
    return list(
        step.gather(
            lambda: step.sleep(7200),
            lambda: step.wait_for("approval", Decision),
            lambda: step.invoke(double.job(4)),
            lambda: step.wait_for("refund", Decision),
            lambda: step.wait_for("return", Decision),
        )
    )


@q.task(durable=True)
def wordy(text: str) -> int:
    return step.run(describe, text)
