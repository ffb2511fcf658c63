"""Random durable flows under kill -9 of workers, runners and the server, with signals whose transactions may roll back."""

from __future__ import annotations

import contextlib
from collections import Counter

import psycopg

from tests.chaos.scene import flows
from tests.chaos.scene.flows import Plan, draw
from tests.chaos.scene.harness import Arena
from tests.support.checks import some
from tests.support.waiting import hold, wait_until

APP = "tests.chaos.scene.flows:q"
AWAY = (psycopg.OperationalError, psycopg.errors.AdminShutdown)
# What is promised of signals and steps, and is not so.
WRONG = {
    "a signal was taken by two steps": (
        "SELECT args FROM jobq.job_step WHERE kind = 'signal' AND state = 'done' GROUP BY args HAVING count(*) > 1"
    ),
    "a signal was taken, and no step has it": (
        "SELECT id, job_id FROM jobq.job_signal AS signal WHERE taken_at IS NOT NULL AND NOT EXISTS (SELECT FROM jobq.job_step"
        " WHERE job_id = taken_by AND kind = 'signal' AND state = 'done' AND (args::jsonb ->> 'id')::bigint = signal.id)"
    ),
    "a signal was not taken": "SELECT id, job_id FROM jobq.job_signal WHERE taken_at IS NULL",
    "an effect happened twice": (
        "SELECT flow, place FROM public.flow_effects GROUP BY flow, place HAVING count(*) > 1"
    ),
    "a job is left": "SELECT id, task, state, run_at FROM jobq.job",
    "a wake is left": "SELECT id, job_id FROM jobq.job_wakeup",
    "a child ran twice": (
        "SELECT parent_job_id, key FROM jobq.workflow GROUP BY parent_job_id, key HAVING count(*) > 1"
    ),
    "a step waits in a job that has ended": (
        "SELECT job_id, kind, name FROM jobq.job_step WHERE state = 'waiting' AND kind <> 'sleep'"
    ),
}


class Flows:
    """The flows of one scenario, and what was sent to them."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.plans: dict[int, Plan] = {}
        self.jobs: dict[int, int] = {}
        self.done: Counter[str] = Counter()
        with arena.connect() as connection:
            connection.execute(flows.TABLE.encode())

    def insert(self, count: int) -> None:
        for _ in range(count):
            plan = draw(len(self.plans), self.arena.random)
            self.plans[plan.number] = plan

            def inserted(plan: Plan = plan) -> bool:
                chosen = flows.flow_async if plan.is_async else flows.flow
                with contextlib.suppress(*AWAY), self.arena.connect() as connection:
                    job = chosen.options(key=f"flow {plan.number}").enqueue(
                        connection, plan.number, [list(move) for move in plan.moves]
                    )
                    self.jobs[plan.number] = job.id
                    return True
                return False

            wait_until(inserted, timeout=60, what="a flow's insert")

    def signal(self, share: float) -> None:
        """Send some of what the flows still need; a third of the transactions roll back, and some are slow to end."""
        for number, job in self.jobs.items():
            if self.arena.random.random() > share:
                continue
            rolls_back = self.arena.random.random() < 0.3
            # If the answer of a commit is lost, the table tells whether the signal was sent.
            with contextlib.suppress(*AWAY), self.arena.connect() as connection:
                if self.sent(connection, number) >= self.plans[number].signals:
                    continue
                with connection.transaction(force_rollback=rolls_back):
                    flows.q.send_signal(connection, job, "number", self.arena.random.randrange(1000))
                    if self.arena.random.random() < 0.1:
                        self.arena.pause(0.0, 0.1)
                self.done["rolled back" if rolls_back else "sent"] += 1

    def sent(self, connection: psycopg.Connection[dict[str, object]], number: int) -> int:
        row = connection.execute(
            "SELECT count(*) AS n FROM jobq.job_signal WHERE job_id = %s", (self.jobs[number],)
        ).fetchone()
        assert row is not None
        return int(str(row["n"]))

    def over(self) -> bool:
        self.signal(1.0)
        hold(0.1)
        with contextlib.suppress(*AWAY), self.arena.connect() as connection:
            return not connection.execute("SELECT FROM jobq.job LIMIT 1").rowcount
        return False

    def check(self) -> list[str]:
        wrong: list[str] = []
        with self.arena.connect() as connection:
            for what, query in WRONG.items():
                wrong += [f"{what}: {row}" for row in connection.execute(query.encode())]
            rows = connection.execute(
                "SELECT id, state, result, error, (SELECT coalesce(sum(payload::integer), 0) FROM jobq.job_signal"
                " WHERE job_signal.job_id = job_history.id) AS sent FROM jobq.job_history WHERE task LIKE 'flow%%'"
            ).fetchall()
            ended = {row["id"]: row for row in rows}
            for number, plan in self.plans.items():
                row = ended.get(self.jobs[number])
                if row is None:
                    wrong.append(f"flow {number}: job {self.jobs[number]} has not ended: {plan.moves}")
                elif (row["state"], row["result"]) != ("succeeded", plan.result(row["sent"])):
                    wrong.append(f"flow {number}: {dict(row)} instead of {plan.result(row['sent'])}: {plan.moves}")
            left = connection.execute("SELECT flow, count(*) AS n FROM public.flow_effects GROUP BY flow").fetchall()
            counts = {row["flow"]: row["n"] for row in left}
            for number, plan in self.plans.items():
                if counts.get(number, 0) != plan.effects:
                    wrong.append(f"flow {number}: {counts.get(number, 0)} effects instead of {plan.effects}")
        return wrong


def test_random_flows(arena: Arena) -> None:
    """Every flow has the result of the same plan in plain Python, and each effect and each signal counts once."""
    scene = Flows(arena)
    flows.q.configure(database_url=arena.url)
    working = [arena.start_worker("--processes", "1", app=APP) for _ in range(2)]

    def kill_dispatcher() -> None:
        index = arena.random.randrange(len(working))
        arena.kill_dispatcher(working[index])
        working[index] = arena.start_worker("--processes", "1", app=APP)

    def kill_runner() -> None:
        arena.kill_runner(arena.random.choice(working))

    def kill_server() -> None:
        arena.fault("kill -9 server")
        arena.server.kill()
        arena.pause(0.0, 0.5)
        arena.server.restart()

    try:
        for turn in range(60 if arena.long else 6):
            scene.insert(12)
            scene.signal(0.4)
            arena.pause(0.0, 0.6)
            fault = [kill_runner, kill_dispatcher, kill_server][turn % 3]
            fault()
            scene.done[fault.__name__] += 1
        # What is left then is among the violations.
        with contextlib.suppress(AssertionError):
            wait_until(scene.over, timeout=300 if arena.long else 60, what="the end of all flows")
    finally:
        flows.q.close()
    codes = []
    for worker in working:
        worker.terminate()
        codes.append(worker.wait())
    wrong = scene.check()
    print(f"{arena.name}, seed {arena.seed}: {len(scene.plans)} flows, {dict(scene.done)}")
    assert not wrong, f"{len(wrong)} violations{arena.where()}\n" + "\n".join(each[:500] for each in wrong[:20])
    assert not any(some(codes)), f"workers ended with {codes}{arena.where()}"
