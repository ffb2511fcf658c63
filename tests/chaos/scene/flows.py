"""Random durable flows: each as a plan, as a task, and as what must come of it, evaluated in plain Python.

A plan is a list of moves. Signals to a flow carry numbers, which it adds up: whichever order they come in, the sum is the same.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobq import Backoff, JobQ, current_job, step

FAST = Backoff(base=0.05, cap=0.5)
TABLE = "CREATE TABLE public.flow_effects (flow integer, place integer, value integer)"
q = JobQ()

Move = list[Any]


def add(total: int, number: int) -> int:
    time.sleep(number % 7 / 100)
    return total + number


def effect(flow: int, place: int, total: int) -> int:
    """Leave a row, which must be there once: it has no unique constraint."""
    current_job().connection.execute("INSERT INTO public.flow_effects VALUES (%s, %s, %s)", (flow, place, total))
    time.sleep(total % 5 / 100)
    return total + place


async def effect_async(flow: int, place: int, total: int) -> int:
    connection = current_job().async_connection
    await connection.execute("INSERT INTO public.flow_effects VALUES (%s, %s, %s)", (flow, place, total))
    return total + place


@q.task(backoff=FAST, max_attempts=50)
def triple(number: int) -> int:
    time.sleep(number % 5 / 100)
    return number * 3


@q.task(durable=True, backoff=FAST, max_attempts=200)
def flow(number: int, moves: list[Move]) -> int:
    """Make the moves of a plan, one after the other."""
    total = number
    for place, (kind, value) in enumerate(moves):
        match kind:
            case "add":
                total = step.run(add, total, value)
            case "effect":
                total = step.options(transactional=True).run(effect, number, place, total)
            case "sleep":
                step.sleep(value)
            case "signal":
                total += step.wait_for("number", int)
            case "child":
                total += step.invoke(triple.job(value))
            case "both":
                got, child = step.gather(partial(step.wait_for, "number", int), partial(step.invoke, triple.job(value)))
                total += got + child
    return total


@q.task(durable=True, backoff=FAST, max_attempts=200)
async def flow_async(number: int, moves: list[Move]) -> int:
    """Make the moves of a plan on the event loop."""
    total = number
    for place, (kind, value) in enumerate(moves):
        match kind:
            case "add":
                total = await step.run_async(add, total, value)
            case "effect":
                total = await step.options(transactional=True).run_async(effect_async, number, place, total)
            case "sleep":
                await step.sleep_async(value)
            case "signal":
                total += await step.wait_for_async("number", int)
            case "child":
                total += await step.invoke_async(triple.job(value))
            case "both":
                got, child = await step.gather_async(
                    step.wait_for_async("number", int), step.invoke_async(triple.job(value))
                )
                total += got + child
    return total


@dataclass(frozen=True, slots=True)
class Plan:
    """One flow."""

    number: int
    is_async: bool
    moves: tuple[Move, ...]

    @property
    def signals(self) -> int:
        """How many signals it waits for."""
        return sum(kind in ("signal", "both") for kind, _ in self.moves)

    @property
    def effects(self) -> int:
        """How many rows it leaves."""
        return sum(kind == "effect" for kind, _ in self.moves)

    def result(self, sent: int) -> int:
        """Return its result, if the signals that it takes carry `sent` together."""
        total = self.number + sent
        for place, (kind, value) in enumerate(self.moves):
            total += {"add": value, "effect": place, "child": 3 * value, "both": 3 * value}.get(kind, 0)
        return total


def draw(number: int, source: random.Random) -> Plan:
    kinds = source.choices(
        ["add", "effect", "sleep", "signal", "child", "both"], [4, 4, 2, 3, 2, 1], k=source.randint(2, 7)
    )
    moves = [[kind, round(source.uniform(0, 0.4), 2) if kind == "sleep" else source.randrange(100)] for kind in kinds]
    return Plan(number, source.random() < 0.5, tuple(moves))
