"""The worst to look at: very many, very long, very large, from right to left, and hostile."""

from __future__ import annotations

import random
import uuid
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from jobq import operations
from jobq._core.fingerprint import fingerprint
from tests.browser import history, seeds_durable, seeds_workflows
from tests.browser.seeds import DAY, HOUR, Seeded, at, batch, maintenance_tasks, operation, schedule, worker
from tests.support.rows import add_attempt, add_finished, add_job

Conn = psycopg.Connection[Any]

# Each would set the mark that the tests look for, if it ever came to run, in the place that it is made for.
SCRIPTS = (
    "<script>window.jobqInjected=1</script>",
    '"><img src=x onerror=window.jobqInjected=1>',
    "'><svg onload=window.jobqInjected=1>",
    "</title></textarea></script><script>window.jobqInjected=1</script>",
    "javascript:window.jobqInjected=1",
    "{{ 7*7 }}${window.jobqInjected=1}<%= 7 %>",
    '" autofocus onfocus="window.jobqInjected=1" hx-get="/jobs" data-hx-on:load="window.jobqInjected=1',
)
INJECTED = "window.jobqInjected"
HOSTILE = "".join(SCRIPTS)
ARABIC = "فشل إرسال الفاتورة رقم ٤٧ إلى العميل"
HEBREW = "שליחת החשבונית נכשלה"
EMOJI = "📨👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿 Ā̷̰̀a̐éö̲"
# An override that would turn round what stands after it.
OVERRIDE = "\u202egnp.exe\u202c \u2066after\u2069"

_LONG = "customer-notifications-and-reminders-for-unpaid-invoices-of-the-previous-quarter-europe-north-and-west"
QUEUES = [
    *(f"team-{n:02}" for n in range(1, 33)),
    _LONG[:100],
    "x" * 100,
    "رسائل-العملاء",
    "📨 mails & more",
    f"{SCRIPTS[0]}"[:100],
    f"{SCRIPTS[1]}"[:100],
    "a/b?c=d#e%20f&g",
    'with "quotes", commas',
]
TASKS = [
    *(f"shop.{area}.{verb}" for area in ("orders", "mail", "stock", "reports") for verb in ("create", "sync", "send")),
    ("shop.accounting.integrations.very_deep_package_name." * 5)[:200],
    "y" * 200,
    f"{HOSTILE}"[:200],
    f"مهمة.{EMOJI}",
]
ERRORS = (
    "ConnectionError: bank {n} did not answer within 30 s",
    "ValueError: order {n} has no lines",
    "KeyError: 'customer_{n}'",
    'psycopg.errors.UniqueViolation: duplicate key value violates unique constraint "invoice_number_key"\n'
    "DETAIL:  Key (number)=({n}) already exists.",
    f"UnicodeError: {ARABIC} {OVERRIDE}",
    f"RuntimeError: {HOSTILE}",
    "MemoryError",
    "E" * 300,
)


def _grouped(conn: Conn, seeded: Seeded) -> None:
    """Thousands of groups, some with names that no one would wish for, under every rule that can be set."""
    with conn.transaction():
        operations.configure(
            conn, "jobq", seeded.queue, actor=HOSTILE[:200], limit=2_000_000_000, rate="9999/366day", burst=9999,
            groups="fair:2000000000", group_rate="123456/365day", group_burst=123_456,
        )  # fmt: skip
        for key in (HOSTILE[:200], "x" * 200, ARABIC):
            operations.configure_group(conn, "jobq", seeded.queue, key, limit=1_234_567, actor="ann")
    conn.execute(
        "INSERT INTO jobq.job (task, queue, group_key) SELECT 'shop.stock.sync', %(queue)s, 'tenant ' || n %% 2500"
        " FROM generate_series(1, 6000) AS n",
        {"queue": seeded.queue},
    )
    for key in (HOSTILE[:200], "x" * 200, ARABIC):
        for _ in range(9):
            seeded.jobs["grouped"] = add_job(conn, task="shop.stock.sync", queue=seeded.queue, group_key=key)


def lot(conn: Conn) -> Seeded:
    """Fill the database; see the module."""
    seeded = Seeded(queue=QUEUES[0])
    history.days(conn, 4)
    workers = _workers(conn, seeded)
    _masses(conn, workers)
    _singles(conn, seeded, workers)
    _pauses(conn)
    _grouped(conn, seeded)
    _audit(conn)
    _operations(conn, seeded)
    _schedules(conn, seeded)
    seeded.workflows = seeds_workflows.lot(conn, HOSTILE, ARABIC, _LONG)
    seeded.jobs |= seeds_durable.lot(conn, HOSTILE, _LONG * 40)
    history.rollups(
        conn,
        {name: 30 / (n + 1) for n, name in enumerate(QUEUES)},
        {name: 30 / (n + 1) for n, name in enumerate(TASKS)},
    )
    maintenance_tasks(conn, workers[0], error=f"RuntimeError: {HOSTILE}")
    return seeded


def _workers(conn: Conn, seeded: Seeded) -> list[uuid.UUID]:
    common: dict[str, Any] = {"app": "shop.jobs:q", "tasks": TASKS, "slots": 16, "rss": 1_400_000_000}
    found = [
        worker(conn, seeded, host=f"worker-{n:02}.jobs.example", pid=4000 + n, running=n % 17, started_at=at(conn, -n * HOUR),
               **common)
        for n in range(1, 9)
    ]  # fmt: skip
    others: list[dict[str, Any]] = [
        {"host": "late.jobs.example", "beat_ago": 12, "running": 3},
        {"host": "silent.jobs.example", "beat_ago": 600, "running": 16},
        {"host": "quiet.jobs.example", "state": "quiet", "requested_state": "quiet", "running": 1},
        {"host": "stopping.jobs.example", "state": "draining", "requested_state": "stop", "running": 2},
        {"host": "asked-only.jobs.example", "requested_state": "stop", "running": 2},
        {"host": "starting.jobs.example", "state": "starting", "rss": None},
        {"host": f"{_LONG}.{_LONG}.example", "queues": QUEUES, "version": "0.0.9"},
        {"host": HOSTILE, "app": HOSTILE, "version": HOSTILE, "queues": [HOSTILE], "tasks": [HOSTILE]},
    ]
    return found + [worker(conn, seeded, **{**common, **columns}) for columns in others]


def _masses(conn: Conn, workers: list[uuid.UUID]) -> None:
    history.finished(conn, "succeeded", 4000, queues=QUEUES, tasks=TASKS, since=3 * DAY, until=3)
    history.finished(conn, "cancelled", 80, queues=QUEUES, tasks=TASKS, since=2 * DAY, errors=("cancelled by ann",))
    history.finished(conn, "expired", 30, queues=QUEUES, tasks=TASKS, since=2 * DAY)
    history.finished(conn, "failed", 700, queues=QUEUES, tasks=TASKS, since=2 * DAY, until=400, errors=ERRORS)
    conn.execute(
        "INSERT INTO jobq.job (task, queue, priority, run_at, created_at, args)"
        " SELECT (%(tasks)s::text[])[1 + n %% 16], (%(queues)s::text[])[1 + n %% 40], n %% 10,"
        "        now() - n * interval '1.3 s', now() - n * interval '1.3 s', jsonb_build_object('order_id', n)"
        " FROM generate_series(1, 2600) AS n",
        {"tasks": TASKS, "queues": QUEUES},
    )
    # One queue beyond what counts count to.
    conn.execute("INSERT INTO jobq.job (task, queue) SELECT %s, 'team-01' FROM generate_series(1, 10500)", (TASKS[0],))
    conn.execute(
        "INSERT INTO jobq.job (task, queue, run_at, attempt, claims)"
        " SELECT (%(tasks)s::text[])[1 + n %% 16], (%(queues)s::text[])[1 + n %% 40],"
        "        now() + n * n * interval '11 s', n %% 3, n %% 3 FROM generate_series(1, 300) AS n",
        {"tasks": TASKS, "queues": QUEUES},
    )
    for n in range(60):
        add_job(
            conn, task=TASKS[n % 16], queue=QUEUES[n % 40], state="running", attempt=1, claims=1, run_in=-n * 9,
            worker_id=workers[n % len(workers)], started_at=at(conn, -n * 8), created_at=at(conn, -n * 9 - 4),
            progress={"done": n, "total": 60} if n % 3 == 0 else None, timeout=600 if n % 2 else None,
        )  # fmt: skip


def _singles(conn: Conn, seeded: Seeded, workers: list[uuid.UUID]) -> None:
    jobs, by = seeded.jobs, workers[0]
    jobs["huge"] = add_job(
        conn, task="shop.reports.create", queue="team-02", run_in=-5,
        args={"note": "a 2 MB argument follows", "document": random.Random(2).randbytes(1024 * 1024).hex()},
    )  # fmt: skip
    deep: Any = {"bottom": HOSTILE}
    for level in range(120):
        deep = {f"level_{level}": deep} if level % 2 else [deep, level]
    jobs["deep"] = add_finished(
        conn, "succeeded", task="shop.stock.sync", queue="team-03", worker_id=by, ago=2,
        created_at=at(conn, -9), started_at=at(conn, -5),
        args={
            "deep": deep, "beyond_2_to_53": 9007199254740993, "far_beyond": 12345678901234567890123, "small": 1e-320,
            "nul_escaped": "a\\u0000b", "list": list(range(400)), "": "an empty name", "empty": {}, "null": None,
        },
        result={"wide": {f"field_{n}": n * 1.1 for n in range(300)}},
    )  # fmt: skip
    jobs["foreign"] = add_finished(
        conn, "failed", task=TASKS[-1], queue="رسائل-العملاء", key=f"مفتاح {EMOJI}", error=f"{ARABIC} {OVERRIDE} {EMOJI}",
        args={"الاسم": ARABIC, "שם": HEBREW, "emoji": EMOJI, "override": OVERRIDE}, ago=30, worker_id=by,
        created_at=at(conn, -50), run_at=at(conn, -50), started_at=at(conn, -41),
    )  # fmt: skip
    add_attempt(
        conn, jobs["foreign"], worker_id=by, error_type=HEBREW, message=f"{ARABIC} {OVERRIDE}", traceback=ARABIC,
        started_at=at(conn, -41), finished_at=at(conn, -30),
    )  # fmt: skip
    lines = "\n".join(
        f'  File "/srv/shop/deep/{n:03}/module.py", line {n}, in call_{n}\n    return call_{n + 1}({"argument, " * (n % 23)})'
        for n in range(200)
    )
    jobs["traceback"] = add_finished(
        conn, "failed", task="shop.orders.sync", queue="team-04", error="RecursionError: maximum recursion depth exceeded",
        attempt=25, max_attempts=25, claims=25, worker_id=by, ago=60, created_at=at(conn, -DAY), started_at=at(conn, -62),
    )  # fmt: skip
    for n in range(1, 26):
        began = -DAY + n * n * 130
        message = "maximum recursion depth exceeded" if n % 4 else f"order {n} has no lines"
        add_attempt(
            conn, jobs["traceback"], attempt=n, claims=n, worker_id=workers[n % 9],
            outcome=("error", "timeout", "crashed")[n % 3 if n < 25 else 0], error_type="RecursionError", message=message,
            started_at=at(conn, began), finished_at=at(conn, began + 9), retry_at=at(conn, began + 60) if n < 25 else None,
            traceback=f"Traceback (most recent call last):\n{lines}\nRecursionError: {message}",
        )  # fmt: skip
    jobs["hostile"] = add_finished(
        conn, "failed", task=HOSTILE[:200], queue=SCRIPTS[0], key=HOSTILE[:500], group_key=HOSTILE, error=HOSTILE,
        args={HOSTILE: HOSTILE, "list": list(SCRIPTS)}, headers={HOSTILE: HOSTILE, "tags": list(SCRIPTS)},
        result={HOSTILE: HOSTILE}, worker_id=by, ago=10, started_at=at(conn, -12),
        created_at=at(conn, -300),
    )  # fmt: skip
    for n, script in enumerate(SCRIPTS, start=1):
        add_attempt(
            conn, jobs["hostile"], attempt=n, claims=n, worker_id=by, error_type=script, message=HOSTILE, traceback=HOSTILE,
            started_at=at(conn, n * 10 - 200), finished_at=at(conn, n * 10 - 198), retry_at=at(conn, n * 10 - 190),
        )  # fmt: skip
    jobs["running"] = add_job(
        conn, task=TASKS[12], queue=_LONG[:100], state="running", attempt=3, claims=4, worker_id=workers[8],
        started_at=at(conn, -3700), run_in=-3800, progress={"done": 999_999, "total": 123_456_789, HOSTILE: HOSTILE},
    )  # fmt: skip
    jobs["ready"] = add_job(conn, task=HOSTILE[:200], queue=SCRIPTS[1], args={"x": HOSTILE}, run_in=-1, priority=9)
    jobs["scheduled"] = add_job(conn, task=TASKS[13], queue="x" * 100, run_in=400 * DAY)


def _pauses(conn: Conn) -> None:
    rows = [
        ("team-05", "ann", "new release"),
        (SCRIPTS[0], HOSTILE, HOSTILE),
        (_LONG[:100], "b" * 200, "because " * 60),
    ]
    for name, by, reason in rows:
        conn.execute(
            "INSERT INTO jobq.queue (name, paused_at, paused_by, pause_reason) VALUES (%s, now() - interval '2 days', %s, %s)",
            (name, by, reason),
        )


def _audit(conn: Conn) -> None:
    conn.execute(
        "INSERT INTO jobq.audit (at, actor, action, target, reason, role, address, before, after)"
        " SELECT now() - (400 - n) * interval '11 minutes', (ARRAY['ann', 'bob', 'deploy'])[1 + n % 3],"
        "  (ARRAY['retry', 'cancel', 'move', 'delete', 'snooze', 'run_now'])[1 + n % 6],"
        "  jsonb_build_object('ids', jsonb_build_array(n, n + 1, n + 2)),"
        "  CASE WHEN n % 4 = 0 THEN 'asked for by a customer' END,"
        "  (ARRAY['operator', 'admin', NULL])[1 + n % 3], CASE WHEN n % 3 < 2 THEN '192.0.2.7' END,"
        "  CASE WHEN n % 6 = 2 THEN '{\"priority\": 5}'::jsonb END, CASE WHEN n % 6 = 2 THEN '{\"priority\": 9}'::jsonb END"
        " FROM generate_series(1, 400) AS n"
    )
    conn.execute(
        "INSERT INTO jobq.audit (actor, action, target, reason, role, address, before, after)"
        " VALUES (%(h)s, %(h)s, %(j)s, %(h)s, %(h)s, %(h)s, %(j)s, %(j)s)",
        {"h": HOSTILE, "j": Jsonb({HOSTILE: HOSTILE})},
    )
    ids = Jsonb({"ids": list(range(1_000_000, 1_000_500))})
    conn.execute("INSERT INTO jobq.audit (actor, action, target) VALUES ('ann', 'retry', %s)", (ids,))


def _operations(conn: Conn, seeded: Seeded) -> None:
    common: dict[str, Any] = {"actor": "ann", "role": "admin", "address": "192.0.2.4", "up_to": 20_000}
    rows: list[dict[str, Any]] = [
        {"state": "cancelled", "action": "delete", "filter": "state:succeeded age:>30d", "reason": "space", "expected": 100_001,
         "seen": 34_000, "done": 34_000, "started_at": at(conn, -9000), "finished_at": at(conn, -8000)},
        {"state": "failed", "action": "move", "filter": f'task:"{_LONG}*"', "reason": HOSTILE, "error": HOSTILE, "expected": 5,
         "options": {"queue": HOSTILE, "priority": 3}, "started_at": at(conn, -900), "finished_at": at(conn, -890)},
        {"state": "paused", "action": "snooze", "filter": "queue:team-0* state:ready", "reason": "because " * 60,
         "expected": 2000, "seen": 500, "done": 497, "refused": 3, "options": {"seconds": 3600}, "rate": 50,
         "refusals": {"it is running": 2, HOSTILE: 1}, "started_at": at(conn, -300), "progressed_at": at(conn, -60)},
        {"state": "draft", "action": "cancel", "filter": "queue:team-03 state:ready", "expected": 66},
        {"state": "draft", "action": "retry", "filter": "state:failed", "expected": 705},
    ]  # fmt: skip
    ids = [operation(conn, **{**common, **columns}) for columns in rows]
    seeded.preview = ids[4]
    seeded.failure = fingerprint(TASKS[13], ERRORS[5].replace("{n}", "5"))
    seeded.operation = operation(
        conn, **common, state="done", action="retry", filter=f'state:failed error:"{SCRIPTS[3]}"', reason=HOSTILE,
        expected=1500, seen=1500, done=1452, refused=48, refusals={HOSTILE: 48},
        started_at=at(conn, -700), progressed_at=at(conn, -600), finished_at=at(conn, -600),
    )  # fmt: skip
    for n in range(1, 4):
        ids_done = list(range(n * 500, n * 500 + 484))
        batch(conn, seeded.operation, n, done=ids_done, refused={str(n * 500 + 484 + k): HOSTILE for k in range(16)})
    batch(
        conn, ids[2], 1, done=list(range(497)), refused={"498": "it is running", "499": "it is running", "500": HOSTILE}
    )


def _schedules(conn: Conn, seeded: Seeded) -> None:
    """More than a page of them, and the worst."""
    headers = Jsonb({"jobq.schedule": HOSTILE, "jobq.tick": HOSTILE})
    conn.execute("UPDATE jobq.job SET headers = headers || %s WHERE id = %s", (headers, seeded.jobs["running"]))
    for n in range(120):
        schedule(
            conn, name=f"customer:{n:04}", task=TASKS[n % 12], cron=f"{n % 60} {n % 24} * * mon-fri", made_by="ann"
        )
    hostile = {"task": TASKS[14], "timezone": HOSTILE, "app": HOSTILE, "made_by": HOSTILE, "queue": HOSTILE[:100]}
    schedule(
        conn,
        name=SCRIPTS[0],
        cron=HOSTILE,
        last_error=HOSTILE,
        tick_argument=HOSTILE,
        args={HOSTILE: HOSTILE},
        **hostile,
    )
    schedule(
        conn, name="a/b?c=d#e%20f&g", task=TASKS[12], cron="0,5,10,15 1,2,3,5,8,13,21 1,2,3,5,8,13,21 1,3,5 mon,wed,fri"
    )
    schedule(conn, name="(long) " + _LONG, task="y" * 200, every="1 second", last_tick=at(conn, -1), last_job_id=2**62)
    schedule(
        conn, name="(paused) " + ARABIC, task=TASKS[15], cron="@daily", timezone="America/Argentina/ComodRivadavia",
        paused_at=at(conn, -9), paused_by="b" * 200, pause_reason="because " * 60,
    )  # fmt: skip
    seeded.schedule = SCRIPTS[0]
    for n in range(40):
        conn.execute(
            "INSERT INTO jobq.schedule_tick (schedule, tick, job_id) VALUES (%s, %s, %s)",
            (SCRIPTS[0], at(conn, -n * HOUR), 2**62 + n),
        )
