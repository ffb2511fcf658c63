"""A producer: enqueues inside transactions of its own, some rolled back, and writes down the outcome of each.

    python -m tests.chaos.scene.producer '{"url": …, "name": "p0", "seed": 1, "jobs": 100, "seconds": 5, "mix": "calm"}'

It goes on until so many jobs are committed, or may be. What it cannot know it says: a connection that dies at COMMIT
leaves either outcome.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from jobq import JobqError
from jobq.enqueueing import TaskOptions
from jobq.job import KeyHolds, KeyScope
from tests.chaos.scene import app, ledger
from tests.support.waiting import hold

PAUSE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A job to be enqueued."""

    token: str
    task: str
    plan: list[str]
    key: str | None = None
    holds: KeyHolds = "period"
    scope: KeyScope = "task"
    max_attempts: int = 10
    timeout: float | None = None
    delay: float | None = None

    @property
    def held(self) -> str | None:
        """The key with the space in which one job may have it: the task's, or that of all tasks."""
        return self.key and f"{self.task if self.scope == 'task' else 'all'} {self.key}"

    def options(self) -> TaskOptions[[str, list[str]], str]:
        """Return the task with this job's options."""
        tasks = {"act": app.act, "act_async": app.act_async, "act_old": app.act_old, "act_new": app.act_new}
        return tasks[self.task].options(
            key=self.key,
            key_holds=self.holds,
            key_scope=self.scope,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
            delay=self.delay,
        )


# The application's own data, one row a job. A deferred trigger makes each COMMIT last, so that faults find some under way.
OWN_DATA = """
CREATE TABLE own_data (token text PRIMARY KEY);
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(random() * 0.02); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON own_data DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION linger();
"""


# --- what is wished for --------------------

Planner = Callable[[random.Random], dict[str, Any]]


def _plan(*steps: str, task: str = "act", **options: Any) -> Planner:
    return lambda _: {"task": task, "plan": list(steps), **options}


def _sleep(longest: float, task: str = "act") -> Planner:
    return lambda rng: {"task": task, "plan": [f"sleep:{rng.uniform(0.01, longest):.3f}"]}


# Each with its weight. Calm jobs do no harm; the mixed ones hold every way to end.
CALM: list[tuple[int, Planner]] = [
    (40, _plan("ok")),
    (25, _sleep(1.0)),
    (25, _sleep(1.0, "act_async")),
    (6, _plan("error", "ok")),
    (4, _plan("snooze:0.1", "ok")),
]
MIXED: list[tuple[int, Planner]] = [
    (540, _plan("ok")),
    (120, _plan("ok", task="act_async")),
    (100, _sleep(0.2)),
    (100, _sleep(0.3, "act_async")),
    (50, _plan("error", "ok")),
    (15, _plan("error", max_attempts=2)),
    (10, _plan("nul", "ok")),
    (10, _plan("fail")),
    (10, _plan("cancel")),
    (15, _plan("snooze:0.1", "ok")),
    (10, _plan("leave")),
    (10, _plan("sleep:60", "ok", task="act_async", timeout=0.3)),
    (2, _plan("stubborn:60", "ok", timeout=0.3)),
    (2, _plan("stubborn:60", max_attempts=1, timeout=0.3)),
    (3, _plan("exit", "ok")),
    (1, _plan("segfault", "ok")),
    (1, _plan("exit")),
]
VERSIONS: list[tuple[int, Planner]] = [
    (2, _plan("ok")),
    (1, _plan("ok", task="act_old")),
    (1, _plan("ok", task="act_new")),
]
MIXES = {"calm": CALM, "mixed": MIXED, "versions": VERSIONS}


class Producer:
    """Places `jobs` jobs within about `seconds`, on a connection that it makes again whenever it is lost."""

    def __init__(self, *, url: str, name: str, seed: int, jobs: int, seconds: float, mix: str) -> None:
        self._url = url
        self._name = name
        self._random = random.Random(f"{seed} {name}")
        self._jobs = jobs
        self._seconds = seconds
        self._mix = MIXES[mix]
        self._ledger = ledger.here()
        self._connection: psycopg.Connection[Any] | None = None
        self._stop = False
        app.q.configure(database_url=url, pool_size=1, connect_timeout=2)

    def stop(self, *_: object) -> None:
        """Place no more."""
        self._stop = True

    def run(self) -> None:
        """Place the jobs, however often the database goes away."""
        begun, placed, transactions = time.monotonic(), 0, 0
        while placed < self._jobs and not self._stop:
            transactions += 1
            wishes = list(self._wishes(transactions, min(self._random.randint(1, 8), self._jobs - placed)))
            how = self._random.choices(("commit", "rollback", "submit"), (75, 12, 13))[0]
            done = self._submit(wishes[0]) if how == "submit" else self._transact(wishes, how == "rollback")
            placed += done
            # The load is spread over the seconds; after a failure there is a pause for the database to come back in.
            ahead = begun + self._seconds * placed / self._jobs - time.monotonic()
            hold(max(ahead, 0.0 if done or how == "rollback" else PAUSE))

    def _wishes(self, transaction: int, number: int) -> Iterator[Wish]:
        rng = self._random
        planners, weights = [planner for _, planner in self._mix], [weight for weight, _ in self._mix]
        for n in range(number):
            values = rng.choices(planners, weights)[0](rng)
            if rng.random() < 0.15:
                # Few enough that they are wished for again and again, by every producer.
                holds = rng.choice(("period", "until_finished"))
                scope = rng.choice(("task", "task", "global"))
                values |= {"holds": holds, "scope": scope, "key": f"{holds} {rng.randrange(30)}"}
            if rng.random() < 0.05:
                values["delay"] = round(rng.uniform(0.1, 1.5), 2)
            yield Wish(token=f"{self._name}-{transaction}-{n}", **values)

    def _intend(self, wishes: list[Wish], *, data: bool) -> str:
        name = wishes[0].token.rpartition("-")[0]
        listed = [{"token": wish.token, "key": wish.held, "holds": wish.holds, "data": data} for wish in wishes]
        self._ledger.write("intent", transaction=name, jobs=listed)
        return name

    def _transact(self, wishes: list[Wish], roll_back: bool) -> int:
        """Enqueue in one transaction; return how many new jobs may have been committed."""
        name = self._intend(wishes, data=True)
        committing, created = False, 0
        try:
            connection = self._connected()
            jobs = [wish.options().job(wish.token, wish.plan) for wish in wishes]
            for wish, ref in zip(wishes, app.q.enqueue_many(connection, jobs), strict=True):
                self._ledger.write("placed", token=wish.token, job=ref.id, created=ref.created)
                created += ref.created
                if ref.created:
                    connection.execute("INSERT INTO own_data VALUES (%s)", (wish.token,))
            if roll_back:
                connection.rollback()
                self._ledger.write("rollback", transaction=name)
                return 0
            self._ledger.write("committing", transaction=name)
            committing = True
            connection.commit()
        except (psycopg.Error, JobqError) as error:
            self._disconnect()
            fate = "unknown" if committing else "rollback"
            self._ledger.write(fate, transaction=name, error=str(error)[:200])
            return created if committing else 0
        self._ledger.write("commit", transaction=name)
        return created

    def _submit(self, wish: Wish) -> int:
        """Enqueue by submit(): the library's own connection, and its own commit."""
        name = self._intend([wish], data=False)
        self._ledger.write("committing", transaction=name)
        try:
            ref = wish.options().submit(wish.token, wish.plan)
        except (psycopg.Error, JobqError) as error:
            self._ledger.write("unknown", transaction=name, error=str(error)[:200])
            return 1
        self._ledger.write("placed", token=wish.token, job=ref.id, created=ref.created)
        self._ledger.write("commit", transaction=name)
        return int(ref.created)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._url, application_name="chaos producer", connect_timeout=2)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


if __name__ == "__main__":
    producer = Producer(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, producer.stop)
    producer.run()
