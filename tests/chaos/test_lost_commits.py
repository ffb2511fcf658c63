"""A failover to a standby that had not received the last commits: what it lacks was never there, and its ids come again."""

from __future__ import annotations

from tests.chaos.scene.harness import Arena
from tests.support.waiting import wait_until


def test_failover_with_lost_commits(arena: Arena) -> None:
    """Jobs that run were inserted, and claimed, in commits that are lost; their ids are given to other jobs.

    Simulated on one server: what the new primary lacks is taken away, and every connection is cut. Each job that the new
    primary has must run and end with its own outcome, whatever is killed; what is executed of the lost ones changes nothing.
    """
    options = ("--concurrency", "12", "--processes", "1")
    # Alone at first: it must claim the ids again that it holds already.
    working = [arena.start_worker(*options)]
    number = 8
    with arena.connect() as connection:
        sequence = connection.execute("SELECT last_value, is_called FROM jobq.job_id_seq").fetchone()
        assert sequence is not None
        lost = arena.place("lost", [[f"sleep:{arena.random.uniform(1.0, 2.5):.2f}"] for _ in range(number)])
        wait_until(lambda: arena.started(lost) == set(lost), what="the jobs that will be lost")
        arena.fault("failover: the last commits are lost")
        with connection.transaction():
            connection.execute("DELETE FROM jobq.job")
            connection.execute(
                "SELECT setval('jobq.job_id_seq', %s, %s)", (sequence["last_value"], sequence["is_called"])
            )
        arena.terminate_backends(1.0)
        # Longer than the lost ones: their ends come while these run.
        kept = arena.place("kept", [[f"sleep:{arena.random.uniform(3.0, 4.0):.2f}"] for _ in range(number)])
        assert kept == lost, "the ids were to come again"
        names = {job: f"kept-{n}" for n, job in enumerate(kept)}
        arena.pause(2.6, 3.0)
        live = connection.execute("SELECT count(*) FROM jobq.job").fetchone()
        early = connection.execute("SELECT id, args->>'token' AS token FROM jobq.job_history").fetchall()
        assert (live, early) == ({"count": number}, []), "a lost job's end was taken for another's"
        working.append(arena.start_worker(*options))
        arena.kill_dispatcher(arena.random.choice(working))
        wait_until(lambda: not arena.waiting(), timeout=60, what=f"the end of the jobs{arena.where()}")
        ended = connection.execute("SELECT id, state, args->>'token' AS token FROM jobq.job_history").fetchall()
    assert {row["id"]: row["token"] for row in ended} == names
    assert {row["state"] for row in ended} == {"succeeded"}
    starts = {
        record["execution"]: record["token"] for record in arena.ledger.read() if record["event"] == "start"
    }  # fmt: skip
    returned = {
        starts[record["execution"]]
        for record in arena.ledger.read()
        if record["event"] == "end" and record["how"] == "ok"
    }
    assert set(names.values()) <= returned
