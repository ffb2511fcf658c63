"""Outages, each made on a healthy database, and what every surface must say of it.

docs/troubleshooting.md has the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg

from jobq import operations
from jobq.cron import Every
from jobq.schedule import Schedule
from tests.support.rows import add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]

HOURS = -3 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """One outage. `make` brings it about.

    `level` and `says`: what the overview says, in red (``bad``) or amber (``warn``). `code`, `line`: doctor's exit code, and a
    part of its line, which begins with the status and the check. `metric`: samples that tell it, by their text without the
    value, with a lower bound. `queue`: what the page of queue `mail` says; None: nothing of it. `settings`: what a test sets in
    modules for it.
    """

    name: str
    make: Callable[[Conn], None]
    level: str
    says: str
    code: int
    line: str
    metric: dict[str, float]
    queue: str | None = None
    settings: dict[str, object] = field(default_factory=dict)


def healthy(db: Conn, **columns: Any) -> None:
    """A worker that serves every queue, and that has nothing to do."""
    add_worker(db, **{"tasks": ["mail.send"], "app": "shop:q", "pid": 1, **columns})


def due(db: Conn, number: int = 3, **columns: Any) -> None:
    for _ in range(number):
        add_job(db, **{"queue": "mail", "run_in": HOURS, **columns})


def old_dead_letter(db: Conn) -> None:
    """One of 20 days ago, in the partition of its day."""
    db.execute("SELECT jobq.make_partition('job_history_failed', ((now() AT TIME ZONE 'UTC')::date - 20))")
    add_finished(db, "failed", queue="mail", ago=20 * 86400)


def _no_worker(db: Conn) -> None:
    due(db)


def _other_queues(db: Conn) -> None:
    healthy(db, queues=["pdf"])
    due(db)


def _unknown_task(db: Conn) -> None:
    healthy(db)
    db.execute("UPDATE jobq.worker SET running = slots")
    due(db, task="mail.new")


def _parked(db: Conn) -> None:
    healthy(db)
    db.execute("UPDATE jobq.worker SET signatures = '{s}'")
    due(db, task="mail.new")
    db.execute(
        "UPDATE jobq.job SET state = 'parked', claims = 1, parked_claims = 1, parked_at = now() - interval '3 hours',"
        " parked_reason = 'there is no task mail.new'"
    )


def _quiet(db: Conn) -> None:
    healthy(db, state="quiet", requested_state="quiet")
    due(db)


def _paused(db: Conn) -> None:
    healthy(db)
    due(db)
    operations.pause(db, "jobq", "mail", actor="ann", reason="bounces")


def _ordered(db: Conn) -> None:
    healthy(db, queues=["pdf"])
    operations.configure(db, "jobq", "mail", groups="ordered", actor="ann")
    due(db, group_key="a")
    assert db.execute("SELECT DISTINCT state FROM jobq.job").fetchall() == [("waiting",)]


def _silent(db: Conn) -> None:
    gone = add_worker(db, tasks=["mail.send"], ago=3600, pid=7)
    add_job(db, queue="mail", state="running", worker_id=gone, started_at="2020-01-01T00:00Z")


def _stuck(db: Conn) -> None:
    healthy(db)
    gone = add_worker(db, tasks=["mail.send"], ago=3600, pid=7)
    add_job(db, queue="mail", state="running", worker_id=gone, started_at="2020-01-01T00:00Z")


def _read_only(db: Conn) -> None:
    healthy(db)
    db.execute(f'ALTER DATABASE "{db.info.dbname}" SET default_transaction_read_only = on'.encode())


def _newer_schema(db: Conn) -> None:
    healthy(db)
    db.execute("UPDATE jobq.schema_version SET version_num = '9999'")


def _older_schema(db: Conn) -> None:
    healthy(db)
    db.execute("UPDATE jobq.schema_version SET version_num = '0008'")
    db.execute("ALTER TABLE jobq.worker DROP COLUMN problems")


def _index_dropped(db: Conn) -> None:
    healthy(db)
    db.execute("DROP INDEX jobq.job_claim_idx")


def _index_invalid(db: Conn) -> None:
    healthy(db)
    db.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jobq.job_claim_idx'::regclass")


def _triggers_disabled(db: Conn) -> None:
    healthy(db)
    db.execute("ALTER TABLE jobq.job DISABLE TRIGGER USER")


def _function_dropped(db: Conn) -> None:
    healthy(db)
    db.execute("DROP FUNCTION jobq.take_key")


def _column_dropped(db: Conn) -> None:
    healthy(db)
    db.execute("ALTER TABLE jobq.job DROP COLUMN releases")


def _constraint_dropped(db: Conn) -> None:
    healthy(db)
    db.execute("ALTER TABLE jobq.job_key DROP CONSTRAINT job_key_pkey")


def _no_partitions(db: Conn) -> None:
    healthy(db)
    for (name,) in db.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^job_(history_.*|attempt)_[0-9]{8}$'"
    ).fetchall():
        db.execute(f"DROP TABLE jobq.{name}".encode())


def _default_partition(db: Conn) -> None:
    healthy(db)
    add_finished(db, "succeeded", ago=30 * 86400)


def _maintenance_tasks_fail(db: Conn) -> None:
    healthy(db)
    db.execute(
        "INSERT INTO jobq.maintenance_task (name, last_error) VALUES ('partitions', 'no space left'), ('keys', 'no space left')"
    )


def _maintenance_tasks_late(db: Conn) -> None:
    healthy(db)
    db.execute("INSERT INTO jobq.maintenance_task (name, due_at) VALUES ('retention', now() - interval '3 hours')")


def _schedule(db: Conn) -> None:
    made = Schedule(name="nightly", task="mail.send", when=Every(timedelta(hours=1)))
    operations.set_schedule(db, "jobq", made, actor="ann")


def _schedule_broken(db: Conn) -> None:
    healthy(db)
    _schedule(db)
    db.execute("UPDATE jobq.schedule SET last_error = 'args: it takes to, and has none'")


def _schedule_late(db: Conn) -> None:
    healthy(db)
    _schedule(db)
    db.execute("UPDATE jobq.schedule SET next_at = now() - interval '3 hours'")


def _rate(db: Conn) -> None:
    healthy(db)
    operations.configure(db, "jobq", "mail", rate="1/day", actor="ann")
    due(db)
    db.execute(
        "INSERT INTO jobq.rate_state (queue, group_key, paid_until) VALUES ('mail', '', now() + interval '1 day')"
    )


def _busy(db: Conn) -> None:
    healthy(db, running=16, slots=16)
    due(db)


def _idle(db: Conn) -> None:
    healthy(db)
    due(db)


def _snapshot(db: Conn) -> None:
    """The test sets LONG_TRANSACTION below zero, and another session holds a transaction open."""
    healthy(db)


def _connections(db: Conn) -> None:
    healthy(db)


def _refused(db: Conn) -> None:
    problem = {
        "what": "write an outcome", "job": 7, "error": "could not extend file: No space left on device",
        "since": "2026-01-01T00:00:00+00:00", "tries": 3,
    }  # fmt: skip
    healthy(db, problems=[problem])


def _import_fails(db: Conn) -> None:
    """Its runners end at the import: it lives, takes nothing, and says so."""
    problem = {
        "what": "start a runner", "error": "the application 'shop:q' cannot be imported: ModuleNotFoundError: stripe",
        "since": "2026-01-01T00:00:00+00:00", "tries": 3,
    }  # fmt: skip
    healthy(db, problems=[problem])
    due(db)


def _no_tasks(db: Conn) -> None:
    healthy(db, tasks=[])


def _dead_letters(db: Conn) -> None:
    healthy(db)
    for _ in range(30):
        add_finished(db, "failed", queue="mail")
    db.execute(
        "INSERT INTO jobq.rollup_queue (span, at, queue, succeeded, failed)"
        " VALUES (60, date_trunc('minute', now()) - interval '2 minutes', '', 10, 30)"
        " ON CONFLICT (span, at, queue) DO UPDATE SET succeeded = 10, failed = 30"
    )


def _few_dead_letters(db: Conn) -> None:
    healthy(db)
    add_finished(db, "failed", queue="mail")
    old_dead_letter(db)


def finding(check: str, status: str = "fail") -> str:
    return f'jobq_findings{{check="{check}",status="{status}"}}'


DUE = {'jobq_queue_due{queue="mail"}': 3, 'jobq_queue_oldest_due_seconds{queue="mail"}': 10_000}
UNSERVED = {"jobq_unserved_jobs": 3}

OUTAGES = [
    Outage(
        name="no worker",
        make=_no_worker,
        level="bad",
        says="No worker is alive: no live worker serves queue mail (3 jobs due, the oldest for 3 h).",
        code=1,
        line="fail  workers       no worker is alive: no live worker serves queue mail (3 jobs due, the oldest for 3 h)",
        metric={finding("workers"): 1, **DUE, **UNSERVED},
        queue="No worker is alive: no live worker serves queue mail (3 jobs due, the oldest for 3 h).",
    ),
    Outage(
        name="workers of other queues only",
        make=_other_queues,
        level="bad",
        says="No live worker serves queue mail (3 jobs due, the oldest for 3 h).",
        code=1,
        line="fail  queues        no live worker serves queue mail (3 jobs due, the oldest for 3 h)",
        metric={finding("queues"): 1, **DUE, **UNSERVED},
        queue="No live worker serves queue mail (3 jobs due, the oldest for 3 h).",
    ),
    Outage(
        name="an ordered queue without a worker",
        make=_ordered,
        level="bad",
        says="No live worker serves queue mail (3 jobs due, the oldest for 3 h).",
        code=1,
        line="fail  queues        no live worker serves queue mail (3 jobs due, the oldest for 3 h)",
        metric={finding("queues"): 1, **DUE, **UNSERVED, 'jobq_queue_jobs{queue="mail",state="waiting"}': 3},
        queue="No live worker serves queue mail (3 jobs due, the oldest for 3 h).",
    ),
    Outage(
        name="no worker knows the task",
        make=_unknown_task,
        level="bad",
        says="No live worker of queue mail knows task mail.new (3 jobs due, the oldest for 3 h).",
        code=1,
        line="fail  tasks         no live worker of queue mail knows task mail.new (3 jobs due, the oldest for 3 h)",
        metric={finding("tasks"): 1, **DUE},
        queue="No live worker of queue mail knows task mail.new (3 jobs due, the oldest for 3 h).",
    ),
    Outage(
        name="parked jobs of a task that no worker knows",
        make=_parked,
        level="bad",
        says="No live worker knows task mail.new since",
        code=1,
        line="fail  parked        no live worker knows task mail.new since",
        metric={finding("parked"): 1, **DUE},
        queue="No live worker knows task mail.new since",
    ),
    Outage(
        name="all workers are quiet",
        make=_quiet,
        level="bad",
        says="1 of 1 live worker claims nothing, since an operator asked for that; no other is alive, so no job starts",
        code=1,
        line="fail  workers       1 of 1 live worker claims nothing",
        metric={finding("workers"): 1, finding("queues"): 1, **DUE, **UNSERVED},
        queue="Every live worker that serves queue mail (3 jobs due, the oldest for 3 h) claims nothing: quiet.",
    ),
    Outage(
        name="a paused queue with due jobs",
        make=_paused,
        level="warn",
        says="Queue mail is paused by ann (bounces), with 3 jobs due, the oldest for 3 h.",
        code=0,
        line="warn  paused        queue mail is paused by ann (bounces), with 3 jobs due, the oldest for 3 h",
        metric={finding("paused", "warn"): 1, **DUE, 'jobq_queue_paused{queue="mail"}': 1},
        queue="by ann: bounces. It accepts jobs but starts none.",
    ),
    Outage(
        name="the only worker died with running jobs",
        make=_silent,
        level="bad",
        says="No worker is alive: 1 job of workers that are gone goes on as running.",
        code=1,
        line="fail  workers       no worker is alive: 1 job of workers that are gone goes on as running",
        metric={finding("workers"): 1, 'jobq_workers{health="silent",state="running"}': 1},
        queue="No worker is alive: 1 job of workers that are gone goes on as running.",
    ),
    Outage(
        name="running jobs of a dead worker that are not put back",
        make=_stuck,
        level="bad",
        says="1 job is running in the name of silent workers (box:7)",
        code=1,
        line="fail  stranded      1 job is running in the name of silent workers (box:7)",
        metric={finding("stranded"): 1},
    ),
    Outage(
        name="a read-only database",
        make=_read_only,
        level="bad",
        says="is read-only by its settings",
        code=78,
        line="fail  server        PostgreSQL",
        metric={finding("server"): 1},
    ),
    Outage(
        name="a schema newer than the code",
        make=_newer_schema,
        level="bad",
        says="Schema 'jobq' is at revision 9999",
        code=78,
        line="fail  schema        schema 'jobq' is at revision 9999",
        metric={finding("schema"): 1},
    ),
    Outage(
        name="a schema older than the code",
        make=_older_schema,
        level="bad",
        says="Schema 'jobq' is at revision 0008",
        code=78,
        line="fail  schema        schema 'jobq' is at revision 0008",
        metric={finding("schema"): 1},
    ),
    Outage(
        name="a dropped index",
        make=_index_dropped,
        level="bad",
        says="Index job_claim_idx is missing",
        code=78,
        line="fail  objects       index job_claim_idx is missing",
        metric={finding("objects"): 1},
    ),
    Outage(
        name="an invalid index",
        make=_index_invalid,
        level="bad",
        says="Index job_claim_idx is invalid: it is not used. REINDEX INDEX",
        code=78,
        line="fail  objects       index job_claim_idx is invalid",
        metric={finding("objects"): 1},
    ),
    Outage(
        name="disabled triggers",
        make=_triggers_disabled,
        level="bad",
        says="disabled: inserted jobs wake no worker, and groups get no turn",
        code=78,
        line="disabled: inserted jobs wake no worker, and groups get no turn",
        metric={finding("objects"): 1},
    ),
    Outage(
        name="a dropped function",
        make=_function_dropped,
        level="bad",
        says="Function take_key(",
        code=78,
        line="fail  objects       function take_key(",
        metric={finding("objects"): 1},
    ),
    Outage(
        name="a dropped column",
        make=_column_dropped,
        level="bad",
        says="Column job.releases is missing",
        code=78,
        line="fail  objects       column job.releases is missing",
        metric={finding("objects"): 1},
    ),
    Outage(
        name="a dropped constraint",
        make=_constraint_dropped,
        level="bad",
        says="Constraint job_key.job_key_pkey is missing",
        code=78,
        line="fail  objects       constraint job_key.job_key_pkey is missing",
        metric={finding("objects"): 1},
    ),
    Outage(
        name="no partition for today",
        make=_no_partitions,
        level="bad",
        says="job_history_succeeded have no partition for today",
        code=1,
        line="have no partition for today",
        metric={finding("partitions"): 1},
    ),
    Outage(
        name="rows in a default partition",
        make=_default_partition,
        level="warn",
        says="job_history_succeeded_rest holds rows for which no day had been made",
        code=0,
        line="warn  partitions    table job_history_succeeded_rest holds rows",
        metric={finding("partitions", "warn"): 1},
    ),
    Outage(
        name="maintenance tasks that fail",
        make=_maintenance_tasks_fail,
        level="bad",
        says="Maintenance tasks keys, partitions failed when they last ran: no space left.",
        code=1,
        line="fail  maintenance   maintenance tasks keys, partitions failed when they last ran: no space left",
        metric={finding("maintenance"): 1},
    ),
    Outage(
        name="maintenance tasks that no worker does",
        make=_maintenance_tasks_late,
        level="bad",
        says="Maintenance task retention is overdue by 3 h.",
        code=1,
        line="fail  maintenance   maintenance task retention is overdue by 3 h",
        metric={finding("maintenance"): 1},
    ),
    Outage(
        name="a schedule that cannot tick",
        make=_schedule_broken,
        level="bad",
        says="Schedule nightly cannot tick: args: it takes to, and has none.",
        code=1,
        line="fail  schedules     schedule nightly cannot tick: args: it takes to, and has none",
        metric={finding("schedules"): 1},
    ),
    Outage(
        name="a schedule that is not ticked",
        make=_schedule_late,
        level="bad",
        says="1 schedule is due for more than a minute: nightly (up to 3 h)",
        code=1,
        line="fail  schedules     1 schedule is due for more than a minute: nightly (up to 3 h)",
        metric={finding("schedules"): 1},
    ),
    Outage(
        name="a rate that is used up",
        make=_rate,
        level="warn",
        says="Queue mail is late (3 jobs due, the oldest for 3 h), and may be held back by its limit, its rate",
        code=0,
        line="warn  late          queue mail is late (3 jobs due, the oldest for 3 h), and may be held back by its limit",
        metric={finding("late", "warn"): 1, **DUE},
        queue="Queue mail is late (3 jobs due, the oldest for 3 h), and may be held back by its limit, its rate",
    ),
    Outage(
        name="too few workers",
        make=_busy,
        level="warn",
        says="Queue mail is late (3 jobs due, the oldest for 3 h): every slot of the workers that serve it is taken.",
        code=0,
        line="warn  late          queue mail is late (3 jobs due, the oldest for 3 h)",
        metric={finding("late", "warn"): 1, **DUE, 'jobq_worker_slots{kind="taken"}': 16},
        queue="Queue mail is late (3 jobs due, the oldest for 3 h)",
    ),
    Outage(
        name="workers that claim nothing though slots are free",
        make=_idle,
        level="bad",
        says="Queue mail has jobs that have been due for 3 h, and 16 slots of its workers stand idle.",
        code=1,
        line="fail  idle          queue mail has jobs that have been due for 3 h, and 16 slots of its workers stand idle",
        metric={finding("idle"): 1, **DUE},
        queue="Queue mail has jobs that have been due for 3 h, and 16 slots of its workers stand idle.",
    ),
    Outage(
        name="an old snapshot that blocks vacuum",
        make=_snapshot,
        level="warn",
        says="has a transaction open for",
        code=0,
        line="vacuum cannot clean up",
        metric={finding("transactions", "warn"): 1},
        settings={"jobq.diagnostics.server.LONG_TRANSACTION": -1},
    ),
    Outage(
        name="few connections left",
        make=_connections,
        level="bad",
        says="connections are taken. Raise max_connections",
        code=1,
        line="fail  connections",
        metric={finding("connections"): 1},
        settings={"jobq.diagnostics.load.CONNECTIONS_LEFT": 10_000, "jobq.diagnostics.load.FEW_CONNECTIONS": 10_000},
    ),
    Outage(
        name="a full disk",
        make=_refused,
        level="bad",
        says="Worker box:1 cannot write an outcome (job 7) since 2026-01-01T00:00:00+00:00, tried 3 times: could",
        code=1,
        line="fail  problems      worker box:1 cannot write an outcome (job 7) since",
        metric={finding("problems"): 1},
    ),
    Outage(
        name="an import that fails",
        make=_import_fails,
        level="bad",
        says="Worker box:1 cannot start a runner since 2026-01-01T00:00:00+00:00, tried 3 times: the application 'shop:q'",
        code=1,
        line="fail  problems      worker box:1 cannot start a runner since",
        metric={finding("problems"): 1, **DUE},
        queue="Queue mail has jobs that have been due for 3 h, and 16 slots of its workers stand idle.",
    ),
    Outage(
        name="an application without tasks",
        make=_no_tasks,
        level="warn",
        says="1 of 1 live worker can run no job, since its application has no task: box:1 (shop:q).",
        code=0,
        line="warn  workers       1 of 1 live worker can run no job",
        metric={finding("workers", "warn"): 1},
    ),
    Outage(
        name="most jobs fail",
        make=_dead_letters,
        level="bad",
        says="Most jobs fail permanently: 30 of 40 that finished in the last hour.",
        code=1,
        line="fail  failures      most jobs fail permanently: 30 of 40 that finished in the last hour",
        metric={finding("failures"): 1, "jobq_failed_24h": 30},
    ),
    Outage(
        name="some jobs failed",
        make=_few_dead_letters,
        level="warn",
        says="1 job has failed permanently in the last 24 hours; 1 older.",
        code=0,
        line="warn  failures      1 job has failed permanently in the last 24 hours; 1 older",
        metric={finding("failures", "warn"): 1, "jobq_failed_24h": 1, "jobq_failed": 2},
    ),
]
