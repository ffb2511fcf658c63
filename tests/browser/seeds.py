"""Data to look at: nothing, a little of everything, a lot of the worst. For the browser tests and for pictures.

Written straight into the tables, so that days of work stand there within a second or two, and no worker changes it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from jobq import operations
from jobq._core.fingerprint import fingerprint
from tests.browser import history, seeds_durable
from tests.support.rows import add_attempt, add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]
Name = Literal["none", "little", "lot"]
NAMES: tuple[Name, ...] = ("none", "little", "lot")
HOUR = 3600.0
DAY = 24 * HOUR

TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/jobs.py", line 41, in capture
    answer = bank.capture(order.total, reference=order.id)
  File "/srv/shop/bank.py", line 88, in capture
    return self._post("/captures", amount)
  File "/srv/shop/bank.py", line 31, in _post
    raise BankUnavailable(f"bank answered {answer.status} after {answer.seconds:.1f} s")
"""


@dataclass(slots=True)
class Seeded:
    """What a data set holds that a page or a test wants to point at: job ids by nickname, names, and whose hearts beat."""

    jobs: dict[str, int] = field(default_factory=dict)
    workflows: dict[str, int] = field(default_factory=dict)
    queue: str = "default"
    schedule: str = "export.nightly"
    operation: int = 0
    preview: int = 0
    failure: str = ""
    beating: dict[uuid.UUID, float] = field(default_factory=dict)

    def beat(self, conn: Conn) -> None:
        """Let the workers' last heartbeats be as long ago as they are meant to be: without it all would fall silent."""
        for worker, ago in self.beating.items():
            conn.execute(
                "UPDATE jobq.worker SET heartbeat_at = clock_timestamp() - %s * interval '1 second' WHERE id = %s",
                (ago, worker),
            )


def fill(conn: Conn, name: Name) -> Seeded:
    """Write data set `name` into the migrated, empty database of `conn`, which commits each statement by itself."""
    seeded = {"none": lambda _: Seeded(), "little": little, "lot": _lot}[name](conn)
    conn.execute("ANALYZE")
    seeded.beat(conn)
    return seeded


def _lot(conn: Conn) -> Seeded:
    from tests.browser.seeds_lot import lot

    return lot(conn)


def _workflows() -> Any:
    from tests.browser import seeds_workflows

    return seeds_workflows


def worker(conn: Conn, seeded: Seeded, *, beat_ago: float = 0.5, **columns: Any) -> uuid.UUID:
    """Add a worker whose last heartbeat stays `beat_ago` seconds ago."""
    id = add_worker(conn, ago=beat_ago, **columns)
    seeded.beating[id] = beat_ago
    return id


def at(conn: Conn, seconds: float) -> Any:
    """Return the moment `seconds` from now, by the database's clock."""
    row = conn.execute("SELECT clock_timestamp() + %s * interval '1 second'", (seconds,)).fetchone()
    assert row is not None
    return row[0]


def _grouped(conn: Conn, seeded: Seeded, worker: uuid.UUID) -> None:
    """Mails in order for each customer, within what the provider allows; one of them runs, and others wait for it."""
    with conn.transaction():
        operations.configure(
            conn, "jobq", "mails", actor="ann", reason="the provider's contract", limit=20, rate="50/s", burst=10,
            groups="ordered", group_rate="5/s",
        )  # fmt: skip
    order = iter(range(4200, 4300))
    running = add_job(
        conn, task="mail.receipt", queue="mails", state="running", attempt=1, claims=1, worker_id=worker, limited=True,
        group_key="customer:42", args={"order_id": next(order)}, started_at=at(conn, -2), run_at=at(conn, -9),
    )  # fmt: skip
    for group, number in (("customer:42", 3), ("customer:7", 2), ("customer:1031", 1)):
        for _ in range(number):
            job = add_job(conn, task="mail.receipt", queue="mails", group_key=group, args={"order_id": next(order)})
            seeded.jobs["grouped" if group == "customer:42" else "turn"] = job
    assert running


def little(conn: Conn) -> Seeded:
    """A small shop on a quiet afternoon: one job or more of each kind, told in plain words."""
    seeded = Seeded(queue="mails")

    def ago(seconds: float) -> Any:
        return at(conn, -seconds)

    first = worker(
        conn, seeded, host="web-1", pid=2114, slots=8, running=2, app="shop.jobs:q", rss=212 * 2**20,
        started_at=ago(5 * DAY), tasks=["export.nightly", "invoice.create", "mail.receipt", "payment.capture"],
    )  # fmt: skip
    second = worker(
        conn, seeded, host="web-2", pid=877, slots=8, state="quiet", requested_state="quiet",
        app="shop.jobs:q", rss=190 * 2**20,
        started_at=ago(2 * HOUR), queues=["mails", "thumbnails"], tasks=["mail.receipt", "thumbnail.render"],
    )  # fmt: skip
    jobs = seeded.jobs
    history.days(conn, 3)
    for n in range(14):
        jobs["succeeded"] = add_finished(
            conn, "succeeded", task="mail.receipt", queue="mails", worker_id=first, args={"order_id": 4100 + n},
            result={"message_id": f"<{4100 + n}@shop.example>"}, ago=n * 220 + 5,
            created_at=ago(n * 220 + 8), run_at=ago(n * 220 + 8), started_at=ago(n * 220 + 6),
        )  # fmt: skip
    jobs["failed"] = _troubled(conn, first, second)
    add_finished(
        conn, "failed", task="payment.capture", args={"order_id": 4002}, error="BankUnavailable: bank answered 502",
        worker_id=first, attempt=5, max_attempts=5, claims=5, ago=9 * HOUR, started_at=ago(9 * HOUR + 31),
        created_at=ago(9.2 * HOUR), run_at=ago(9 * HOUR + 31),
    )  # fmt: skip
    jobs["cancelled"] = add_finished(
        conn, "cancelled", task="export.nightly", queue="exports", error="cancelled by ann", attempt=0, claims=0,
        ago=HOUR, started_at=None, created_at=ago(1.2 * HOUR),
    )  # fmt: skip
    jobs["expired"] = add_finished(
        conn, "expired", task="mail.reminder", queue="mails", attempt=0, claims=0, ago=2 * HOUR, started_at=None,
        created_at=ago(3 * HOUR), run_at=ago(3 * HOUR),
    )  # fmt: skip
    jobs["running"] = add_job(
        conn, task="export.nightly", queue="exports", state="running", attempt=1, claims=1, worker_id=first, timeout=900,
        args={"month": "2026-10", "format": "csv"}, progress={"done": 61, "total": 100}, started_at=ago(94),
        created_at=ago(97), run_at=ago(97),
    )  # fmt: skip
    jobs["cancelling"] = add_job(
        conn, task="payment.capture", state="running", attempt=2, claims=2, worker_id=first, args={"order_id": 4113},
        started_at=ago(12), created_at=ago(80), run_at=ago(13), cancel_requested_at=ago(3),
    )  # fmt: skip
    add_attempt(
        conn, jobs["cancelling"], worker_id=first, error_type="BankUnavailable", message="bank answered 503 after 2.0 s",
        traceback=f"{TRACEBACK}shop.bank.BankUnavailable: bank answered 503 after 2.0 s", started_at=ago(75),
        finished_at=ago(73), retry_at=ago(13),
    )  # fmt: skip
    jobs["ready"] = add_job(conn, task="invoice.create", args={"order_id": 4114}, run_in=-40, created_at=ago(40))
    jobs["unserved"] = add_job(conn, task="thumbnail.render", queue="pictures", args={"path": "a/b.jpg"}, run_in=-300)
    jobs["paused"] = add_job(conn, task="export.nightly", queue="exports", key="export 2026-11", run_in=-600)
    jobs["scheduled"] = add_job(
        conn, task="mail.reminder", queue="mails", args={"order_id": 4090}, run_in=3 * HOUR, priority=2
    )
    jobs["retrying"] = add_job(
        conn, task="payment.capture", args={"order_id": 4110, "card_token": "tok_secret"}, attempt=2, claims=2, run_in=1800,
        max_attempts=5, created_at=ago(400), started_at=ago(62),
    )  # fmt: skip
    for n in (1, 2):
        text = f"bank answered 502 after {n * 3}.4 s"
        add_attempt(
            conn, jobs["retrying"], attempt=n, claims=n, worker_id=first, error_type="BankUnavailable", message=text,
            traceback=f"{TRACEBACK}shop.bank.BankUnavailable: {text}", started_at=ago(500 - n * 200),
            finished_at=ago(497 - n * 200), retry_at=ago(497 - n * 200 - 60),
        )  # fmt: skip
    _grouped(conn, seeded, first)
    add_job(conn, task="backup.check", queue="later", run_in=10 * DAY)
    with conn.transaction():
        operations.pause(conn, "jobq", "exports", actor="ann", reason="the disk is full until 18:00")
    conn.execute(
        "INSERT INTO jobq.audit (actor, action, target, reason, role, address, before, after, at) VALUES"
        " ('bob', 'move', %s, 'it blocks the others', 'operator', '192.0.2.7', %s, %s, %s),"
        " ('ann', 'quiet', %s, 'new release', 'admin', '192.0.2.4', NULL, NULL, %s)",
        (
            Jsonb({"ids": [jobs["scheduled"]]}), Jsonb({"priority": 5}), Jsonb({"priority": 2}), ago(7000),
            Jsonb({"worker": str(second)}), ago(90),
        ),
    )  # fmt: skip
    seeded.operation = operation(
        conn, state="done", action="retry", filter="state:failed task:mail.receipt", actor="ann", reason="mail server is back",
        expected=12, seen=12, done=11, refused=1, refusals={"it is running": 1}, created_at=ago(5400), started_at=ago(5390),
        progressed_at=ago(5389), finished_at=ago(5389), up_to=jobs["succeeded"], role="operator",
    )  # fmt: skip
    batch(conn, seeded.operation, 1, done=list(range(1, 12)), refused={"12": "it is running"})
    seeded.preview = operation(
        conn, state="draft", action="move", filter="queue:mails state:scheduled", actor="bob", role="operator", expected=1,
        up_to=jobs["retrying"], options={"priority": 9},
    )  # fmt: skip
    _schedules(conn, jobs)
    seeded.workflows = _workflows().little(conn, first)
    jobs.update(seeds_durable.little(conn, first))
    seeded.failure = fingerprint("payment.capture", "BankUnavailable: bank answered 502 after 6.4 s")
    history.rollups(conn, {"mails": 40, "default": 12, "exports": 1}, {"mail.receipt": 40, "payment.capture": 12})
    maintenance_tasks(conn, first)
    return seeded


def _schedules(conn: Conn, jobs: dict[str, int]) -> None:
    """One of each status."""
    conn.execute("UPDATE jobq.worker SET schedules = '{export.nightly,mail.digest}' WHERE pid = 2114")
    berlin = {"timezone": "Europe/Berlin", "source": "code", "app": "shop.jobs:q", "made_by": "web-1"}
    tick = at(conn, -9 * HOUR)
    schedule(
        conn, name="export.nightly", task="export.nightly", queue="exports", cron="30 2 * * *", last_tick=tick,
        last_job_id=jobs["cancelled"], args={"format": "csv", "token": "secret"}, tick_argument="night", **berlin,
    )  # fmt: skip
    for n in range(8):
        conn.execute(
            "INSERT INTO jobq.schedule_tick (schedule, tick, job_id, inserted_at) VALUES ('export.nightly', %s, %s, %s)",
            (at(conn, -n * DAY - 9 * HOUR), jobs["cancelled"] - n, at(conn, -n * DAY - 9 * HOUR)),
        )
    schedule(
        conn, name="mail.digest", task="mail.reminder", queue="mails", cron="0 7 * * mon-fri", paused_at=at(conn, -HOUR),
        paused_by="ann", pause_reason="the mail server is being moved", **berlin,
    )  # fmt: skip
    schedule(conn, name="backup.check", task="backup.check", every="6 hours", made_by="bob", queue="later")
    schedule(conn, name="import", task="import.feed", cron="*/15 * * * *", next_at=at(conn, -HOUR), made_by="bob")
    schedule(conn, name="report:42", task="report", cron="0 6 1 * *", timezone="Europe/Berln", made_by="bob")
    gone = {**berlin, "task": "cleanup", "cron": "0 4 * * *"}
    schedule(conn, name="cleanup", withdrawn_at=at(conn, -DAY), **gone)
    schedule(conn, name="sitemap", **{**gone, "app": "blog.jobs:q", "task": "sitemap"})


def schedule(conn: Conn, **columns: Any) -> None:
    """Insert a schedule that ticks tomorrow, or as `columns` say; dicts become JSON."""
    columns = {"next_at": at(conn, DAY), **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    conn.execute(f"INSERT INTO jobq.schedule ({names}) VALUES ({marks})".encode(), values)


def _troubled(conn: Conn, first: uuid.UUID, second: uuid.UUID) -> int:
    """A dead job with a past: an error, a timeout, a crash of its worker (a rescue), and the last error."""
    start = 3 * HOUR
    id = add_finished(
        conn, "failed", task="payment.capture", args={"order_id": 4001, "amount": "19.90", "card_token": "tok_4242"},
        headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tags": ["vip"]},
        error="BankUnavailable: bank answered 502 after 6.4 s", attempt=4, max_attempts=4, claims=5, crashes=1, timeout=30,
        worker_id=first, key="capture 4001", ago=start - 700, created_at=at(conn, -start), run_at=at(conn, -start + 690),
        started_at=at(conn, -start + 693),
    )  # fmt: skip
    said = [
        (1, 1, "error", "BankUnavailable", "bank answered 503 after 2.0 s", 4, 6, 36),
        (2, 2, "timeout", "Timeout", "ran longer than its timeout of 30 s", 37, 67, 127),
        (3, 3, "crashed", "WorkerLost", "the worker's process died (killed by signal 9)", 128, 150, 180),
        (4, 5, "error", "BankUnavailable", "bank answered 502 after 6.4 s", 693, 700, None),
    ]
    for attempt, claims, outcome, kind, message, began, ended, again in said:
        add_attempt(
            conn, id, attempt=attempt, claims=claims, outcome=outcome, error_type=kind, message=message,
            worker_id=second if outcome == "crashed" else first, started_at=at(conn, began - start),
            finished_at=at(conn, ended - start), retry_at=at(conn, again - start) if again else None,
            traceback=f"{TRACEBACK}shop.bank.{kind}: {message}" if outcome == "error" else None,
        )  # fmt: skip
    return id


def operation(conn: Conn, **columns: Any) -> int:
    """Insert a bulk operation as it would stand after its work; dicts become JSON."""
    columns.setdefault("counted", columns.get("expected", 0))
    names = ", ".join(columns)
    marks = ", ".join(["%s"] * len(columns))
    values = [Jsonb(value) if isinstance(value, dict) else value for value in columns.values()]
    row = conn.execute(
        f"INSERT INTO jobq.operation ({names}) VALUES ({marks}) RETURNING id".encode(), values
    ).fetchone()
    assert row is not None
    return int(row[0])


def batch(conn: Conn, operation: int, n: int, *, done: list[int], refused: dict[str, str]) -> None:
    """Insert the outcome of one batch of an operation."""
    conn.execute(
        "INSERT INTO jobq.operation_batch (operation_id, n, done, refused) VALUES (%s, %s, %s, %s)",
        (operation, n, done, Jsonb(refused)),
    )


def maintenance_tasks(conn: Conn, by: uuid.UUID, error: str | None = None) -> None:
    """Say of the maintenance tasks that they ran."""
    conn.execute(
        "INSERT INTO jobq.maintenance_task (name, due_at, last_run_at, last_worker, last_report, last_error) VALUES"
        " ('partitions', now() + interval '1 hour', now() - interval '50 minutes', %(by)s, '3 made', NULL),"
        " ('rollup', now() + interval '20 s', now() - interval '40 s', %(by)s, '14 rows', %(error)s)"
        " ON CONFLICT (name) DO NOTHING",
        {"by": by, "error": error},
    )
