"""Durable jobs to look at: one that waits for an approval, one that has done much, one that went well, and the worst."""

from __future__ import annotations

import json
import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from tests.support.rows import add_finished, add_job

Conn = psycopg.Connection[Any]
HOUR = 3600.0


def little(conn: Conn, worker: uuid.UUID) -> dict[str, int]:
    """A refund that waits for an approval, one with everything that a job can wait for, and one that has ended."""
    found = {}
    found["approval"] = job = add_job(
        conn, task="refund", args={"order_id": 4113}, attempt=1, claims=2, run_in=7 * 24 * HOUR,
        created_at=_at(conn, -5400), started_at=_at(conn, -5000), worker_id=worker,
    )  # fmt: skip
    _step(
        conn,
        job,
        1,
        "load",
        began=5390,
        ended=5388,
        args={"order_id": 4113},
        result={"total": "19.90", "currency": "EUR"},
    )
    _step(
        conn,
        job,
        2,
        "ask",
        began=5388,
        ended=5380,
        args={"to": "ann@shop.example", "token": "t"},
        result="<4113@shop.example>",
    )
    _step(conn, job, 3, "cool down", kind="sleep", began=5380, ended=5000, args={"seconds": 380.0})
    _step(conn, job, 4, "approval", kind="signal", began=5000, wake=20 * HOUR)
    _signal(conn, job, "remark", {"text": "the customer has called twice"}, sent=900, by="bob")

    found["several"] = job = add_job(
        conn, task="onboarding", args={"customer": 42}, attempt=1, claims=4, run_in=1800,
        created_at=_at(conn, -600), started_at=_at(conn, -90), worker_id=worker,
    )  # fmt: skip
    child = add_job(conn, task="mail.welcome", args={"customer": 42})
    row = conn.execute(
        "INSERT INTO jobq.workflow (name, nodes, on_failure, parent_job_id)"
        " VALUES ('mail.welcome', 1, 'continue', %s) RETURNING id",
        (job,),
    ).fetchone()
    assert row is not None
    conn.execute(
        "INSERT INTO jobq.workflow_node (id, workflow_id, number, name, kind, task, queue, feeds, args, headers)"
        " VALUES (%s, %s, 1, 'mail.welcome', 'task', 'mail.welcome', 'default', '{}', '{}', '{}')",
        (child, row[0]),
    )
    conn.execute("UPDATE jobq.job SET node_id = id, node_item = 0 WHERE id = %s", (child,))
    _step(conn, job, 1, "create account", began=599, ended=520, args={"customer": 42}, result=None)
    _step(conn, job, 2, "with invoices", kind="since", began=520, ended=520)
    error = {"type": "builtins:ConnectionError", "message": "the provider answered 503 after 30.0 s"}
    _step(conn, job, 3, "charge", state="failed", began=500, ended=420, args={"amount": "5.00"}, error=error, tries=3)
    _step(conn, job, 4, "approval", kind="signal", state="timed_out", began=420, ended=300)
    _step(conn, job, 5, "mail.welcome", kind="child", began=300, args={"customer": 42}, child=row[0])
    _step(conn, job, 6, "sync", state="retrying", began=290, wake=1800, args={"page": 3}, error=error, tries=2)
    _step(conn, job, 7, "address", kind="signal", began=290)

    found["stepped"] = job = add_finished(
        conn, "succeeded", task="refund", args={"order_id": 4007}, result={"refunded": "7.50"}, claims=3, ago=HOUR,
        worker_id=worker, created_at=_at(conn, -3 * HOUR), run_at=_at(conn, -HOUR - 9), started_at=_at(conn, -HOUR - 8),
    )  # fmt: skip
    _step(
        conn, job, 1, "load", began=3 * HOUR - 1, ended=3 * HOUR - 2, args={"order_id": 4007}, result={"total": "7.50"}
    )
    taken = _signal(conn, job, "approval", {"by": "ann", "limit": 50}, sent=HOUR + 20, by="ann", taken=HOUR + 8)
    _step(
        conn, job, 2, "approval", kind="signal", state="done", began=3 * HOUR - 2, ended=HOUR + 8,
        args={"id": taken, "by": "ann"}, result={"by": "ann", "limit": 50},
    )  # fmt: skip
    _step(conn, job, 3, "refund", began=HOUR + 8, ended=HOUR, args={"order_id": 4007}, result={"receipt": "r-4007"})
    return found


def lot(conn: Conn, hostile: str, long: str) -> dict[str, int]:
    """A job with many steps, whose names and values are the worst."""
    job = add_job(
        conn, task="import", attempt=1, claims=9, run_in=HOUR, created_at=_at(conn, -2000), started_at=_at(conn, -9)
    )
    conn.execute(
        "INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, finished_at,"
        " args, result) SELECT %s, 'run', 'page', n::text, 0, n, 'done', 1, now() - (2000 - n) * interval '1 s',"
        " now() - (1999 - n) * interval '1 s', jsonb_build_object('page', n)::text, to_jsonb(n)"
        " FROM generate_series(1, 1500) AS n",
        (job,),
    )
    _step(conn, job, 1501, hostile[:150], began=400, ended=390, args={"text": hostile}, result=hostile)
    error = {"type": long[:300], "message": long}
    _step(conn, job, 1502, long[:200], state="failed", began=390, ended=380, args={"text": long[:900]}, error=error)
    for n in range(3):
        _signal(conn, job, hostile[:150], long[:3000], sent=300 - n, by=hostile[:150])
    _step(conn, job, 1503, hostile[:150].replace("\x00", ""), kind="signal", began=300)
    _step(conn, job, 1504, long[:200], kind="signal", began=300)
    return {"durable": job}


def _at(conn: Conn, seconds: float) -> Any:
    row = conn.execute("SELECT clock_timestamp() + %s * interval '1 second'", (seconds,)).fetchone()
    assert row is not None
    return row[0]


def _step(
    conn: Conn,
    job: int,
    place: int,
    name: str,
    *,
    kind: str = "run",
    state: str | None = None,
    began: float,
    ended: float | None = None,
    wake: float | None = None,
    args: dict[str, Any] | None = None,
    result: Any = ...,
    error: dict[str, Any] | None = None,
    child: int | None = None,
    tries: int = 1,
) -> None:
    """Insert a step that began and ended so many seconds ago, and goes on in `wake` seconds."""
    conn.execute(
        "INSERT INTO jobq.job_step (job_id, kind, name, args_hash, number, place, state, attempt, started_at, finished_at,"
        " wake_at, args, result, error, child_id, tries) VALUES (%s, %s, %s, %s, 0, %s, %s, 1,"
        " clock_timestamp() - %s * interval '1 s', clock_timestamp() - %s * interval '1 s',"
        " clock_timestamp() + %s * interval '1 s', %s, %s, %s, %s, %s)",
        (
            job, kind, name, str(place), place, state or ("waiting" if ended is None else "done"), began, ended, wake,
            None if args is None else json.dumps(args, ensure_ascii=False),
            None if result is ... else Jsonb(result), None if error is None else Jsonb(error), child, tries,
        ),
    )  # fmt: skip


def _signal(
    conn: Conn, job: int, name: str, payload: Any, *, sent: float, by: str | None = None, taken: float | None = None
) -> int:
    row = conn.execute(
        "INSERT INTO jobq.job_signal (job_id, name, payload, sent_by, sent_at, taken_at, taken_by) VALUES (%s, %s, %s, %s,"
        " clock_timestamp() - %s * interval '1 s', clock_timestamp() - %s * interval '1 s', %s) RETURNING id",
        (job, name, Jsonb(payload), by, sent, taken, None if taken is None else job),
    ).fetchone()
    assert row is not None
    return int(row[0])
