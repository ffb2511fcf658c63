"""The database says no: to a statement for a while, to one row for good, or only after it was asked for something else."""

from __future__ import annotations

import contextlib

import psycopg

from tests.chaos.scene.app import quiet
from tests.chaos.scene.harness import Arena
from tests.chaos.scene.history import Limits
from tests.support.waiting import hold

# Long enough that a lock does not outlast the lease.
PATIENT = ("--heartbeat-interval", "0.5", "--suspicion", "2", "--lease", "20")


def claims(arena: Arena, jobs: list[int]) -> list[int]:
    with arena.connect() as connection:
        rows = connection.execute("SELECT claims FROM jobq.job_history WHERE id = ANY (%s)", (jobs,)).fetchall()
    return sorted({row["claims"] for row in rows})


def test_tables_are_locked(arena: Arena) -> None:
    """By LOCK TABLE, and by an ALTER TABLE that waits behind a reader: jobs that run go on, no worker is taken for dead."""
    for _ in range(2):
        arena.start_worker(times=PATIENT)
    running = arena.place("running", [["sleep:9"]] * 4)
    arena.produce(arena.size(60), 60 if arena.long else 8)

    def lock() -> None:
        table = arena.random.choice(("job", "job", "worker", "job_history", "queue"))
        seconds = arena.random.uniform(3.0, 4.5)
        arena.fault("LOCK TABLE", table=table, seconds=seconds)
        with psycopg.connect(arena.url, application_name="chaos") as connection:
            connection.execute(f"LOCK TABLE jobq.{table} IN ACCESS EXCLUSIVE MODE".encode())
            hold(seconds)

    def alter() -> None:
        seconds = arena.random.uniform(1.0, 3.0)
        arena.fault("ALTER TABLE behind a reader", seconds=seconds)
        with psycopg.connect(arena.url, application_name="chaos") as reader, arena.connect() as other:
            reader.execute("SELECT count(*) FROM jobq.job")
            other.execute(f"SET lock_timeout = {int(seconds * 1000)}".encode())
            with contextlib.suppress(psycopg.errors.LockNotAvailable):
                other.execute("ALTER TABLE jobq.job SET (fillfactor = 70)")
                other.execute("ALTER TABLE jobq.job ADD COLUMN passing integer")

    def strike() -> None:
        lock() if arena.random.random() < 0.6 else alter()

    arena.pause(1.0, 1.5)
    lock()
    arena.torment(strike, every=(0.2, 0.5), most=1)
    arena.finish(limits=Limits(blameless=True))
    assert claims(arena, running) == [1]


def test_statements_are_cancelled(arena: Arena) -> None:
    """As by a statement timeout, at any moment, on any of the workers' connections."""
    for _ in range(2):
        arena.start_worker(times=PATIENT)
    running = arena.place("running", [["sleep:5"]] * 4)
    arena.produce(arena.size(150), 60 if arena.long else 5)

    def strike() -> None:
        with arena.connect() as connection:
            rows = connection.execute(
                "SELECT pid, application_name AS name FROM pg_stat_activity WHERE application_name LIKE 'jobq worker%' "
                "AND state = 'active'"
            ).fetchall()
            for row in rows:
                arena.fault("cancel statement", backend=row["name"])
                connection.execute("SELECT pg_cancel_backend(%s)", (row["pid"],))

    arena.torment(strike, every=(0.005, 0.05))
    arena.finish(limits=Limits(blameless=True))
    assert claims(arena, running) == [1]


def test_rows_that_cannot_be_ended(arena: Arena) -> None:
    """A foreign key to some jobs, a trigger that refuses others: these wait, their neighbours end, and no worker does."""
    working = [arena.start_worker() for _ in range(2)]
    with arena.connect() as connection:
        connection.execute("CREATE TABLE refers (job_id bigint REFERENCES jobq.job (id))")
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON jobq.job_history FOR EACH ROW "
            "WHEN (new.args->>'token' LIKE 'refused-%') EXECUTE FUNCTION refuse()"
        )
    # Claimed once the references are there.
    steps = [["ok"], ["error", "ok"], ["fail"], ["snooze:0.1", "ok"]]
    referred = arena.place("referred", steps, delay=0.5)
    with arena.connect() as connection:
        connection.execute("INSERT INTO refers SELECT unnest(%s::bigint[])", (referred,))
    refused = arena.place("refused", steps)
    arena.produce(arena.size(150), 60 if arena.long else 5)

    def strike() -> None:
        if arena.random.random() < 0.5:
            arena.kill_runner(arena.random.choice(working))

    arena.torment(strike, every=(0.5, 1.0))
    with arena.connect() as connection:
        ended = connection.execute(
            "SELECT count(*) FROM jobq.job_history WHERE id = ANY (%s)", (referred + refused,)
        ).fetchone()
        assert ended == {"count": 0}
        connection.execute("DROP TABLE refers")
        connection.execute("DROP TRIGGER refuse ON jobq.job_history")
    assert all(worker.is_running() for worker in working), [worker.log[-500:] for worker in working]
    arena.finish(timeout=90)


def test_thousands_of_new_queues(arena: Arena) -> None:
    """One statement puts jobs into 12,000 queues of which no worker has heard: what runs goes on."""
    for _ in range(2):
        arena.start_worker()
    running = arena.place("running", [["sleep:4"]] * 4)
    arena.produce(arena.size(60), 30 if arena.long else 5)
    rounds = 0

    def strike() -> None:
        nonlocal rounds
        rounds += 1
        arena.fault("new queues", round=rounds)
        with arena.connect() as connection:
            connection.execute(
                "INSERT INTO jobq.job (task, queue, run_at) SELECT %s, 'new-' || %s::text || '-' || n, "
                "clock_timestamp() + interval '1 hour' FROM generate_series(1, 12000) AS n",
                (quiet.name, rounds),
            )
            connection.execute(
                "INSERT INTO jobq.job (task, queue) SELECT %s, 'due-' || %s::text || '-' || n "
                "FROM generate_series(1, 50) AS n",
                (quiet.name, rounds),
            )

    arena.torment(strike, every=(1.0, 1.5), most=1)
    with arena.connect() as connection:
        connection.execute("DELETE FROM jobq.job WHERE queue LIKE 'new-%'")
    arena.finish(limits=Limits(blameless=True))
    assert claims(arena, running) == [1]
