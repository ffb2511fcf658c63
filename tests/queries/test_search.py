"""Searching jobs, live and finished: what each term finds, what bounds the search, and the export."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import psycopg
import pytest

from jobq import queries
from jobq._core.fingerprint import fingerprint
from jobq.errors import InvalidOption
from jobq.filters import ArgTerm, JobFilter, Prefix
from jobq.queries import search
from tests.support.checks import some
from tests.support.rows import add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]
HOUR = 3600


def found(conn: Conn, text: str, **options: Any) -> list[int]:
    return [row.id for row in queries.search_jobs(conn, "jobq", JobFilter.parse(text), **options).rows]


@pytest.fixture
def ids(conn: Conn) -> dict[str, int]:
    """One job of each kind that the terms below tell apart."""
    worker = add_worker(conn)
    made = {
        "ready": add_job(conn, queue="mail", task="mail.send", key="receipt:7", attempt=4),
        "scheduled": add_job(conn, queue="mail*", task="mail*x", run_in=HOUR),
        "running": add_job(conn, queue="pdf", task="pdf", state="running", worker_id=worker),
        "parked": add_job(
            conn, state="parked", task="mailx", headers={"tags": ["eu", "big one"]}, group_key="customer:42"
        ),
        "waiting": add_job(conn, state="waiting", headers={"tags": "eu"}),
        "succeeded": add_finished(
            conn, "succeeded", worker_id=worker, headers={"tags": ["EU"]}, ago=10 * HOUR, group_key="customer:42"
        ),
        "failed": add_finished(conn, "failed", error="ValueError: 100% of order 812", attempt=10, ago=2 * HOUR),
        "cancelled": add_finished(conn, "cancelled", error="Cancelled by ann", headers={"tags": []}),
        "expired": add_finished(conn, "expired", key="receipt:8", ago=50 * HOUR),
    }
    conn.execute("UPDATE jobq.job SET created_at = now() - interval '90 minutes' WHERE id = %s", (made["ready"],))
    conn.commit()
    return made


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "ready scheduled running parked waiting succeeded failed cancelled expired"),
        ("state:ready", "ready"),
        ("state:scheduled", "scheduled"),
        ("state:ready,scheduled queue:mail*", "ready scheduled"),
        ("state:scheduled,running,failed", "scheduled running failed"),
        ("state:running", "running"),
        ("queue:mail", "ready"),
        ('queue:"mail*"', "scheduled"),
        ("queue:mail*", "ready scheduled"),
        ("state:ready queue:mail", "ready"),
        ("state:ready,scheduled queue:mail", "ready"),
        ("state:scheduled queue:mail", ""),
        ("task:pdf", "running"),
        ("mail", "ready scheduled parked waiting succeeded failed cancelled expired"),
        ('task:"mail*"*', "scheduled"),
        ("key:receipt:7", "ready"),
        ("key:receipt:*", "ready expired"),
        ("group:customer:42", "parked succeeded"),
        ("group:customer*", "parked succeeded"),
        ("group:customer", ""),
        ("tag:eu", "parked"),
        ('tag:"big one"', "parked"),
        ("tag:b*", "parked"),
        ("tag:E*", "succeeded"),
        ("error:VALUEERROR", "failed"),
        ('error:"100% of"', "failed"),
        ("error:%", "failed"),
        ("error:_", ""),
        ("error:ann state:cancelled,failed", "cancelled"),
        ("error:ann state:ready", ""),
        ("attempt:>3", "ready failed"),
        ("attempt:10", "failed"),
        ("attempt:<1 state:parked", "parked"),
        ("age:>1h", "ready succeeded failed expired"),
        ("age:>1h age:>=1h", None),
        ("age:<=3h state:failed,succeeded", "failed"),
        ("age:>9h", "succeeded expired"),
        ("age:>2d", "expired"),
        ("age:<60s", "scheduled running parked waiting cancelled"),
    ],
)  # fmt: skip
def test_each_term(conn: Conn, ids: dict[str, int], text: str, wanted: str | None) -> None:
    if wanted is None:
        with pytest.raises(InvalidOption, match="said twice"):
            found(conn, text)
        return
    assert found(conn, text) == sorted((ids[name] for name in wanted.split()), reverse=True)


def test_worker_and_ids(conn: Conn, ids: dict[str, int]) -> None:
    (worker,) = [info.id for info in queries.workers(conn, "jobq")]
    assert found(conn, f"worker:{worker}") == [ids["succeeded"], ids["running"]]
    assert found(conn, f"worker:{worker} state:running") == [ids["running"]]
    assert found(conn, "worker:1b4e28ba-2fa1-11d2-883f-0016d3cca427") == []
    assert found(conn, f"{ids['ready']} {ids['failed']} 99999999") == [ids["failed"], ids["ready"]]
    assert found(conn, f"{ids['ready']} {ids['failed']} state:failed") == [ids["failed"]]
    assert found(conn, f"id:{ids['ready']},{ids['failed']}", before_id=ids["failed"]) == [ids["ready"]]
    page = queries.search_jobs(conn, "jobq", JobFilter(ids=(ids["ready"], ids["failed"])), limit=1)
    assert (page.rows[0].id, page.before_id, page.complete) == (ids["failed"], ids["failed"], True)


ARGUMENTS = {
    "int": 42, "text": "42", "decimal": 42.0, "true": True, "words": "true", "null": None, "nil": "null",
    "big": 2**53 + 1, "bigger": 2**53, "huge": 10**30, "deep": {"a.b": {"": [1, {"x": "y z"}]}}, "empty": "", "object": {},
    "emoji": "🙂", "half": 0.5, "negative": -7,
}  # fmt: skip


@pytest.mark.parametrize("side", ["live", "finished"])
@pytest.mark.parametrize(
    ("term", "fits"),
    [
        ("args.int:42", True), ("args.int:42.0", True), ("args.int:4.2e1", True), ("args.int:043", False),
        ('args.int:"42"', True), ("args.text:42", True), ("args.text:42.0", False), ("args.decimal:42", True),
        ("args.true:true", True), ("args.words:true", True), ("args.true:True", False), ("args.null:null", True),
        ("args.nil:null", True), ("args.none:null", False), (f"args.big:{2**53 + 1}", True), (f"args.big:{2**53}", False),
        (f"args.bigger:{2**53}", True), (f"args.huge:{10**30}", True), ("args.huge:1e30", True), ("args.huge:1e999", False),
        ('args.deep."a.b"."".0:1', True), ('args.deep."a.b"."".1.x:"y z"', True), ('args.deep."a.b"."".-1.x:"y z"', True),
        ("args.deep.a.b:1", False), ('args.empty:""', True), ("args.object:x", False), ("args.emoji:🙂", True),
        ("args.half:0.50", True), ("args.negative:-7", True), ("args.negative:7", False), ("args.INT:42", False),
        ("args.int.0:42", False), ("args.deep.99999999999999999999:1", False), ("args.int:42 args.text:42", True),
        ("args.int:42 args.text:43", False),
    ],
)  # fmt: skip
def test_arguments(conn: Conn, side: str, term: str, fits: bool) -> None:
    id = add_job(conn, args=ARGUMENTS) if side == "live" else add_finished(conn, "succeeded", args=ARGUMENTS)
    assert found(conn, term) == ([id] if fits else [])


def test_a_number_of_many_digits_overflows_nothing(conn: Conn) -> None:
    add_job(conn, args=ARGUMENTS)
    for value in ("9" * 1900, "1e400", "-1e-999", "1e" + "9" * 50, "0" * 100, "NaN", "Infinity", "[" * 900):
        assert found(conn, str(JobFilter(args=(ArgTerm(("int",), value),)))) == []


@pytest.mark.parametrize("group", [None, "a"])
def test_waiting_jobs_of_a_queue_are_found_by_their_index(
    conn: Conn, monkeypatch: pytest.MonkeyPatch, group: str | None
) -> None:
    """However old they are, and however many others there are."""
    wanted = [
        add_job(conn, state="waiting", queue="mail", group_key=key) for key in ("a", "b", "a") if group in (None, key)
    ]
    add_job(conn, state="waiting", queue="pdf", group_key="a")
    conn.execute("INSERT INTO jobq.job (task) SELECT 't' FROM generate_series(1, 500)")
    jobs = JobFilter(states=("waiting",), queue="mail", group=group)
    page = search.search_jobs(conn, "jobq", jobs, reach=10)
    assert [row.id for row in page.rows] == wanted[::-1]
    assert page.complete
    assert {row.group_key for row in page.rows} <= {"a", "b"}
    monkeypatch.setattr(search, "_FEW", 1)
    assert [row.id for row in search.list_jobs(conn, "jobq", jobs)] == wanted[::-1]


def test_hostile_text_is_only_text(conn: Conn, ids: dict[str, int]) -> None:
    for text in ("'; DROP TABLE jobq.job; --", "%s", "%(limit)s", "{schema}", "$1", "\\", "a\nb", "\u202eيمين", '"'):
        begin = Prefix(text)
        for jobs in (
            JobFilter(queue=text, task=text, tag=text, key=text, group=text),
            JobFilter(queue=begin, task=begin, tag=begin, key=begin, group=begin),
            JobFilter(error=text),
            JobFilter(args=(ArgTerm((text, text), text),)),
        ):
            assert queries.search_jobs(conn, "jobq", jobs).rows == []
    assert len(found(conn, "")) == len(ids)


def test_a_failure_group(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "PAGE", 7)
    monkeypatch.setattr(search, "_FIRST_WINDOW", 20)
    group = fingerprint("t", "ValueError: order 1")
    wanted = []
    for n in range(50):
        wanted.append(add_finished(conn, "failed", task="t", error=f"ValueError: order {n}" + " x" * 1000 * (n % 2)))
        wanted.pop() if n % 2 else None
        add_finished(conn, "failed", task="u", error=f"ValueError: order {n}")
        add_finished(conn, "cancelled", task="t", error=f"ValueError: order {n}")
    assert found(conn, f"failure:{group}", limit=1000) == wanted[::-1]
    page = queries.search_jobs(conn, "jobq", JobFilter(failure=group), limit=10)
    rest = queries.search_jobs(conn, "jobq", JobFilter(failure=group), before_id=page.before_id)
    assert [row.id for row in page.rows + rest.rows] == wanted[::-1]
    assert rest.before_id is None


@pytest.mark.parametrize(
    "text", ["", "task:t", "state:failed task:t", "state:ready queue:default", "args.n:1", "age:<1h"]
)
def test_pages_of_every_size_are_the_whole_in_order(conn: Conn, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(search, "_FIRST_WINDOW", 8)
    for n in range(60):
        if n % 3:
            add_job(conn, task="t", args={"n": n % 2})
        else:
            add_finished(conn, "failed" if n % 2 else "succeeded", task="t", args={"n": n % 2})
    whole = found(conn, text, limit=1000)
    assert whole == sorted(whole, reverse=True)
    assert len(whole) >= 10
    for limit in (1, 7, len(whole), 50):
        pages: list[int] = []
        before = None
        while True:
            page = queries.search_jobs(conn, "jobq", JobFilter.parse(text), limit=limit, before_id=before, reach=13)
            pages += [row.id for row in page.rows]
            assert len(page.rows) == limit or not page.complete or page.before_id is None
            assert page.searched <= 13 or page.rows
            before = page.before_id
            if before is None:
                break
        assert pages == whole


def test_states_that_are_not_asked_for_use_up_no_reach(conn: Conn) -> None:
    rare = add_finished(conn, "failed", task="rare")
    for _ in range(50):
        add_finished(conn, "succeeded")
        add_job(conn)
    page = queries.search_jobs(conn, "jobq", JobFilter(states=("failed",), task="rare"), reach=10)
    assert ([row.id for row in page.rows], page.complete, page.searched) == ([rare], True, 1)


def test_a_search_that_takes_long_stops_at_a_window(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_FIRST_WINDOW", 10)
    monkeypatch.setattr(search, "_PATIENCE", -1.0)
    for _ in range(30):
        add_job(conn)
    page = queries.search_jobs(conn, "jobq", JobFilter(task="none"))
    assert (page.rows, page.complete, page.searched) == ([], False, 10)
    assert page.before_id == page.floor_id is not None


def test_more_of_a_queue_than_few_is_searched_by_windows(conn: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_FEW", 5)
    made = [add_job(conn, queue="q") for _ in range(5)]
    assert found(conn, "state:ready queue:q", reach=2) == made[::-1]
    made.append(add_job(conn, queue="q"))
    assert found(conn, "state:ready queue:q", reach=2) == made[:-3:-1]
    running = [add_job(conn, state="running") for _ in range(6)]
    assert found(conn, "state:running") == running[::-1]


def test_small_arguments_that_unfold_to_large_ones_are_left_out_of_lists(conn: Conn) -> None:
    id = add_job(conn, args={"a": "x" * 100_000})
    assert conn.execute("SELECT pg_column_size(args) < 2000 FROM jobq.job WHERE id = %s", (id,)).fetchone() == (True,)
    (row,) = queries.search_jobs(conn, "jobq").rows
    assert row.args is None


# --- Export ---------------------------------------------------------------------------------------------------


def exported(db: Conn, text: str = "", **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in queries.export(db, "jobq", JobFilter.parse(text), **options)]


def test_every_job_is_exported_whole(db: Conn) -> None:
    live = add_job(db, args={"a": "x\n\u2028" * 3000}, headers={"tags": ["t"]}, key="k")
    done = add_finished(db, "failed", error="boom\n" * 500, result={"r": [1, None]}, args={"n": 1})
    first, second = exported(db)
    assert (first["id"], first["state"], first["error"], first["result"]) == (
        done,
        "failed",
        "boom\n" * 500,
        {"r": [1, None]},
    )
    assert (second["id"], second["state"], second["args"], second["key"]) == (
        live,
        "ready",
        {"a": "x\n\u2028" * 3000},
        "k",
    )
    assert second["headers"] == {"tags": ["t"]}
    assert datetime.fromisoformat(first["finished_at"]).utcoffset() is not None
    assert first["finished_at"].endswith("Z")
    assert first.keys() == second.keys()


def test_numbers_keep_their_digits(db: Conn) -> None:
    db.execute(
        """INSERT INTO jobq.job (task, args) VALUES ('t', '{"a": 1.00000000000000000001, "b": 12345678901234567890123}')"""
    )
    (line,) = queries.export(db, "jobq")
    assert '"a": 1.00000000000000000001' in line
    assert '"b": 12345678901234567890123' in line


def test_secrets_are_what_the_caller_makes_of_them(db: Conn) -> None:
    add_finished(db, "succeeded", args={"password": "p"}, headers={"token": "t"}, result={"secret": "s"})
    (row,) = exported(db, redact=lambda value: dict.fromkeys(value, "…"))
    assert (row["args"], row["headers"], row["result"]) == ({"password": "…"}, {"token": "…"}, {"secret": "…"})


@pytest.mark.parametrize("text", ["", "task:mail.send", "args.n:1", "state:failed"])
def test_an_export_of_several_pages(db: Conn, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(search, "PAGE", 4)
    monkeypatch.setattr(search, "_FIRST_WINDOW", 10)
    monkeypatch.setattr("jobq.queries.exports._BYTES", 100)
    for n in range(30):
        add_finished(db, "failed", args={"n": n % 2, "pad": "x" * 20 * (n % 3)}) if n % 2 else add_job(
            db, args={"n": n % 2}
        )
    whole = found(db, text, limit=1000)
    assert len(whole) >= 15
    assert [row["id"] for row in exported(db, text)] == whole
    assert [row["id"] for row in exported(db, text, limit=9)] == whole[:9]
    assert [row["id"] for row in exported(db, text, limit=4)] == whole[:4]
    assert [row["id"] for row in exported(db, text, before_id=whole[6])] == whole[7:]


@pytest.mark.parametrize("autocommit", [True, False])
def test_an_export_holds_no_transaction_while_its_reader_waits(
    database_url: str, db: Conn, monkeypatch: pytest.MonkeyPatch, autocommit: bool
) -> None:
    monkeypatch.setattr(search, "PAGE", 3)
    made = [add_job(db) for _ in range(10)]
    with psycopg.connect(database_url, autocommit=autocommit) as connection:
        lines = queries.export(connection, "jobq")
        seen = []
        for line in some(lines):
            seen.append(json.loads(line)["id"])
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
            if len(seen) == 1:
                # What changes meanwhile is written as it is then; what is new is not reached.
                db.execute("UPDATE jobq.job SET queue = 'other' WHERE id = %s", (made[0],))
                db.execute("DELETE FROM jobq.job WHERE id = %s", (made[1],))
                add_job(db)
        assert seen == [id for id in reversed(made) if id != made[1]]
        assert json.loads(line)["queue"] == "other"
        connection.execute("SELECT 1")
        if not autocommit:
            with pytest.raises(InvalidOption, match="transaction open"):
                queries.export(connection, "jobq")
            connection.rollback()
        with pytest.raises(InvalidOption, match="limit=0"):
            queries.export(connection, "jobq", limit=0)


# --- Autocomplete ---------------------------------------------------------------------------------------------


@pytest.fixture
def seen(conn: Conn) -> str:
    """What is there to suggest; returns a worker's id."""
    add_job(conn, queue="mail", task="mail.send", args={"order_id": 1, "order note": 2}, group_key="customer:42")
    add_job(conn, queue="big mail", task="pdf make", args={"order_id": 1}, group_key="acme")
    add_finished(conn, "succeeded", task="old.one", args={"user": 1})
    worker = add_worker(conn, tasks=["idle.task"], queues=["served"])
    conn.execute("INSERT INTO jobq.rollup_task (span, at, task) VALUES (3600, now(), 'rolled')")
    return str(worker)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("st", ["state:"]),
        ("state:failed qu", ["state:failed queue:"]),
        ("A", ["attempt:", "age:", "args."]),
        ("ma", ["task:mail.send", 'task:"pdf make"']),
        ("state:", [f"state:{state}" for state in queries.STATES]),
        ("state:fa", ["state:failed"]),
        ("state:failed,ca", ["state:failed,cancelled"]),
        ("state:failed,fa", []),
        ("queue:mail", ['queue:"big mail"']),
        ("queue:", ['queue:"big mail"', "queue:mail", "queue:served"]),
        ('queue:"big', ['queue:"big mail"']),
        ("task:", ["task:idle.task", "task:mail.send", "task:old.one", 'task:"pdf make"', "task:rolled"]),
        ("task:OLD", ["task:old.one"]),
        ("task:o", ["task:old.one", "task:rolled"]),
        ("args.", ["args.order_id:", 'args."order note":', "args.user:"]),
        ("args.or", ["args.order_id:", 'args."order note":']),
        ("group:", ["group:acme", 'group:"customer:42"']),
        ("group:ac", ["group:acme"]),
        ("gro", ["group:"]),
        ("age:>", ["age:>1h", "age:>1d"]),
        ("error:x", []),
        ("colour:", []),
        ('task:"never ends', []),
        ("x" * 3000, []),
    ],
)
def test_suggestions(conn: Conn, seen: str, text: str, wanted: list[str]) -> None:
    assert queries.suggest(conn, "jobq", text) == wanted


def test_suggestions_within_a_text(conn: Conn, seen: str) -> None:
    text = 'task:"a b" state:fa queue:mail'
    at = text.index("fa") + 2
    assert queries.suggest(conn, "jobq", text, at) == ['task:"a b" state:failed queue:mail']
    assert queries.suggest(conn, "jobq", text, at - 1) == ['task:"a b" state:failed queue:mail']
    assert queries.suggest(conn, "jobq", "worker:") == [f"worker:{seen}"]
    for cursor in (-5, 0, 3, 11, 10**9):
        for found in some(queries.suggest(conn, "jobq", text, cursor)):
            assert found != text


def test_every_suggestion_is_a_filter_or_its_beginning(conn: Conn, seen: str) -> None:
    for text in ("", "task:", "queue:", "state:", "worker:", "age:", "attempt:"):
        options = queries.suggest(conn, "jobq", text)
        assert 1 <= len(options) <= 12
        for option in some(options):
            if text:
                assert not JobFilter.parse(option).empty


def test_suggestions_are_few_and_of_any_text(conn: Conn) -> None:
    for n in range(50):
        add_job(conn, queue=f"q{n}", task=f'odd "{n}" \\ {chr(0x200F)}')
    assert len(queries.suggest(conn, "jobq", "queue:q")) == 12
    for option in some(queries.suggest(conn, "jobq", "task:odd")):
        assert len(queries.search_jobs(conn, "jobq", JobFilter.parse(option)).rows) == 1
    for text in ("\ud800", "task:\x00", '"', "\\", ":" * 100, "args." * 100):
        assert isinstance(queries.suggest(conn, "jobq", text), list)
