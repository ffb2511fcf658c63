"""Random graphs: each as a plan, as a workflow, and as what must come of it, evaluated in plain Python.

A node fails never, always, or until it is repaired. Only nodes that always fail are wanted whatever their end: what
their dependants see does not depend on when an operator came.
"""

from __future__ import annotations

import os
import random
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jobq import Backoff, Fail, JobQ
from jobq.workflow import OnFailure, Workflow

DIRECTORY = "CHAOS_GRAPHS"
FAST = Backoff(base=0.05, cap=0.5)
q = JobQ()

Fails = Literal["never", "always", "once"]


def _try(token: str, fails: str, most: float = 0.15) -> None:
    """Take a while, so that some are running when a fault strikes; then fail if that is the plan."""
    place = Path(os.environ[DIRECTORY])
    with (place / "ran").open("ab", buffering=0) as file:
        file.write(f"{token} {time.time_ns()}\n".encode())
    time.sleep(zlib.crc32(token.encode()) % 8 / 8 * most)
    if fails == "always" or (fails == "once" and not (place / token.partition(".")[0]).exists()):
        raise Fail(f"{token} fails {fails}")


@q.task(backoff=FAST)
def work(n: int, token: str, fails: str, values: list[Any], seen: Any = None) -> int:
    _try(token, fails)
    return value_of(n, values, None if seen is None else seen["state"])


@q.task(backoff=FAST)
def listed(n: int, token: str, fails: str, values: list[Any], seen: Any = None) -> list[int]:
    _try(token, fails)
    return list(range(value_of(n, values, None if seen is None else seen["state"]) * 7))


@q.task(backoff=FAST)
def item(number: int, token: str, broken: list[int], fails: str) -> int:
    _try(f"{token}.{number}", fails if number in broken else "never", 0.01)
    return number * 3


@q.task(backoff=FAST)
def total(parts: Sequence[int], token: str, values: list[Any]) -> int:
    _try(token, "never")
    return value_of(sum(parts), values, None)


def value_of(n: int, values: Sequence[Any], seen: str | None) -> int:
    return int(n + sum(values) + {None: 0, "succeeded": 1}.get(seen, 2)) % 5


@dataclass(frozen=True, slots=True)
class Plan:
    """A node. Its parents are places of nodes before it."""

    kind: Literal["work", "listed", "map", "total"]
    n: int
    fails: Fails = "never"
    results: tuple[int, ...] = ()
    defaults: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    seen: int | None = None
    """The node whose outcome it gets."""
    when: int | None = None
    """The node whose result is its condition."""
    source: int | None = None
    """The node whose list the map is over, or the map that is summed up."""
    broken: tuple[int, ...] = ()
    least: float = 1.0

    @property
    def needed(self) -> set[int]:
        """The parents that must succeed."""
        of = {self.when, self.source} - {None}
        return {*self.results, *self.after, *(one for one in of if one is not None)}

    @property
    def parents(self) -> set[int]:
        return self.needed | set(self.defaults) | ({self.seen} if self.seen is not None else set())


@dataclass(slots=True)
class Graph:
    """A graph by its number: the same at each call with the same `random`."""

    number: int
    on_failure: OnFailure
    nodes: list[Plan] = field(default_factory=list)

    @property
    def token(self) -> str:
        return f"g{self.number}"

    def build(self) -> Workflow:
        with q.workflow("chaos", key=self.token, on_failure=self.on_failure) as wf:
            made: list[Any] = []
            for place, plan in enumerate(self.nodes):
                values = [made[p].result for p in plan.results] + [made[p].result_or(3) for p in plan.defaults]
                token = f"{self.token}-{place}"
                one: Any
                if plan.kind == "map":
                    over = list(range(plan.n)) if plan.source is None else made[plan.source].result
                    one = item.map(over, token, list(plan.broken), plan.fails).min_success(plan.least)
                elif plan.kind == "total":
                    assert plan.source is not None
                    one = total.node(made[plan.source].results, token, values)
                else:
                    task = work if plan.kind == "work" else listed
                    seen = None if plan.seen is None else made[plan.seen].outcome
                    one = task.node(plan.n, token, plan.fails, values, seen)
                if plan.when is not None:
                    one = one.when(made[plan.when].result)
                if plan.after:
                    one = one.after(*(made[p] for p in plan.after))
                made.append(one.named(f"n{place}"))
        return wf

    def state(self) -> str:
        """Return the state of the run when all is repaired."""
        ends = self.outcome()
        wanted = {parent for plan in self.nodes for parent in plan.parents}
        last = [state for place, (state, _) in enumerate(ends) if place not in wanted]
        if any(state in ("waiting", "failed", "upstream_failed") for state in last):
            return "blocked" if self.on_failure == "hold" else "failed"
        return "succeeded"

    def outcome(self) -> list[tuple[str, Any]]:
        """Return the state and the result of each node when all is repaired. A node that waits for ever: "waiting"."""
        ends: list[tuple[str, Any]] = []
        for plan in self.nodes:
            states = [ends[parent][0] for parent in sorted(plan.needed)]
            if any(ends[parent][0] == "waiting" for parent in plan.parents):
                ends.append(("waiting", None))
            elif any(state not in ("succeeded", "skipped") for state in states):
                ends.append(("waiting" if self.on_failure == "hold" else "upstream_failed", None))
            elif "skipped" in states or (plan.when is not None and not ends[plan.when][1]):
                ends.append(("skipped", None))
            else:
                ends.append(self._end(plan, ends))
        return ends

    def _end(self, plan: Plan, ends: list[tuple[str, Any]]) -> tuple[str, Any]:
        values = [ends[p][1] for p in plan.results]
        values += [ends[p][1] if ends[p][0] == "succeeded" else 3 for p in plan.defaults]
        if plan.kind == "map":
            numbers = list(range(plan.n)) if plan.source is None else ends[plan.source][1]
            good = [n * 3 for n in numbers if plan.fails != "always" or n not in plan.broken]
            return ("succeeded", good) if len(good) >= len(numbers) * plan.least else ("failed", None)
        if plan.kind == "total":
            return "succeeded", value_of(sum(ends[plan.source or 0][1]), values, None)
        if plan.fails == "always":
            return "failed", None
        value = value_of(plan.n, values, None if plan.seen is None else ends[plan.seen][0])
        return "succeeded", value if plan.kind == "work" else list(range(value * 7))


def draw(number: int, chance: random.Random, most: int) -> Graph:
    """Return a random graph of up to `most` nodes, maps included as one."""
    policies: tuple[OnFailure, ...] = ("hold", "hold", "continue", "continue", "cancel")
    graph = Graph(number, chance.choice(policies))
    heals: set[int] = set()
    for place in range(chance.choice((2, 5, 10, most))):
        fails: Fails = chance.choice(("always", "once")) if chance.random() < 0.05 else "never"
        # A node that fails until it is repaired is wanted for its result only.
        numbers = [p for p, plan in enumerate(graph.nodes) if plan.kind in ("work", "total")]
        firm = [p for p in numbers if graph.nodes[p].fails != "always" or chance.random() < 0.3]
        # What is between a node that fails once and one that takes any end would make its end depend on when it is repaired.
        loose = [p for p in numbers if p not in heals]
        width = chance.choice((0, 1, 2, 3, most)) if place else 0
        results = tuple(sorted(chance.sample(firm, min(width, len(firm)))))
        kind = chance.choices(("work", "map", "listed", "total"), (8, 2, 1, 0))[0]
        when = chance.choice(numbers) if numbers and chance.random() < 0.1 else None
        lists = [p for p, plan in enumerate(graph.nodes) if plan.kind == "listed"]
        maps = [p for p, plan in enumerate(graph.nodes) if plan.kind == "map"]
        if maps and chance.random() < 0.3:
            graph.nodes.append(Plan("total", 0, results=results, source=chance.choice(maps), when=when))
        elif kind == "map":
            n = chance.choice((0, 1, 3, 20, 500))
            broken = tuple(sorted(chance.sample(range(n), min(n, 2)))) if chance.random() < 0.2 else ()
            source = chance.choice(lists) if lists and chance.random() < 0.5 else None
            least = chance.choice((1.0, 0.5))
            # A map that may spare some items ends by itself, so its failed items are not repaired.
            over: Fails = "always" if least < 1 or chance.random() < 0.3 else "once"
            graph.nodes.append(
                Plan(
                    "map",
                    n,
                    over,
                    after=results,
                    source=source,
                    broken=broken if source is None else (),
                    least=least,
                    when=when,
                )
            )
        else:
            defaults = tuple(sorted(chance.sample(loose, min(chance.choice((0, 0, 1, 2)), len(loose)))))
            seen = chance.choice(loose) if loose and chance.random() < 0.1 else None
            after = tuple(chance.sample(lists + maps, 1)) if lists + maps and chance.random() < 0.2 else ()
            graph.nodes.append(
                Plan("work" if kind == "work" else "listed", place, fails, results, defaults, after, seen, when)
            )
        last = graph.nodes[-1]
        if last.parents & heals or (last.fails == "once" and (last.kind != "map" or last.broken)):
            heals.add(place)
    return graph
