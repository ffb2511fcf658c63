"""Limits, rates and rules for groups: what setting them writes, what it refuses, and what claims make of it meanwhile."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import create_async_engine

from jobq import JobQ, operations
from jobq.errors import ConnectionNotUsable, InvalidOption, UnknownQueue, UnsupportedConnection
from jobq.limits import Groups, QueueSettings, Rate
from jobq.operations import configure, configure_group
from tests.support.rows import add_job, add_worker
from tests.support.waiting import wait_until

Conn = psycopg.Connection[Any]


@pytest.fixture
def other(database_url: str) -> Iterator[Conn]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def all_of(db: Conn, query: str, *params: Any) -> list[dict[str, Any]]:
    return db.cursor(row_factory=dict_row).execute(query.encode(), params).fetchall()


def claim(db: Conn, queue: str = "mail", want: int = 10) -> list[int]:
    rows = db.execute("SELECT id FROM jobq.claim_limited(%s, %s, %s)", (uuid.uuid4(), queue, want)).fetchall()
    return [row[0] for row in rows if row[0] is not None]


def blocked(db: Conn) -> bool:
    """Whether a session waits for an advisory lock of this database."""
    return bool(
        all_of(db, "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
                   "(SELECT oid FROM pg_database WHERE datname = current_database())")
    )  # fmt: skip


def turns(db: Conn, queue: str = "mail") -> list[str]:
    return [
        row["group_key"]
        for row in all_of(db, "SELECT group_key FROM jobq.group_ready WHERE queue = %s ORDER BY 1", queue)
    ]


def wait_for(db: Conn, job: int) -> None:
    db.execute("UPDATE jobq.job SET state = 'waiting' WHERE id = %s", (job,))


def test_a_queue_that_nobody_knows_is_set_and_the_audit_says_so(db: Conn, other: Conn) -> None:
    other.execute("LISTEN jobq")
    change = configure(
        db, "jobq", "mail", actor="ann", reason="their API", limit=20, rate="50/s", burst=10, groups="limited:3",
        group_rate="5/10s", group_burst=2,
    )  # fmt: skip

    assert change.changed
    assert change.before == QueueSettings()
    assert change.after.limit == 20
    (row,) = all_of(db, "SELECT *, changed_at > now() - interval '1 min' AS fresh FROM jobq.queue")
    assert row["fresh"]
    assert (row["name"], row["max_running"], row["paused_at"]) == ("mail", 20, None)
    assert (row["rate_jobs"], row["rate_seconds"], row["rate_burst"]) == (50, 1.0, 10)
    assert (row["group_mode"], row["group_limit"], row["group_retry"]) == ("limited", 3, None)
    assert (row["group_rate_jobs"], row["group_rate_seconds"], row["group_rate_burst"]) == (5, 10.0, 2)
    (entry,) = all_of(db, "SELECT * FROM jobq.audit")
    assert (entry["actor"], entry["action"], entry["target"], entry["reason"]) == (
        "ann", "configure", {"queue": "mail"}, "their API",
    )  # fmt: skip
    names = ("limit", "rate", "burst", "groups", "group_rate", "group_burst")
    assert entry["before"] == dict.fromkeys(names)
    assert entry["after"] == dict(zip(names, (20, "50/s", 10, "limited:3", "5/10s", 2), strict=True))
    assert sorted(note.payload for note in other.notifies(timeout=0.5)) == ["insert mail", "queues"]


def test_only_what_is_given_changes_and_only_that_is_in_the_audit(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", limit=20, rate="50/s", burst=10, groups="ordered:pass")
    operations.pause(db, "jobq", "mail", actor="ann")
    first = all_of(db, "SELECT changed_at FROM jobq.queue")[0]["changed_at"]

    change = configure(db, "jobq", "mail", actor="bob", rate="100/min")

    assert (change.before.rate, change.after.rate) == (Rate(50, burst=10), Rate(100, 60, burst=10))
    assert change.after.groups == Groups("ordered", retry="pass")
    assert change.after.paused_at is not None
    entry = all_of(db, "SELECT * FROM jobq.audit ORDER BY id DESC LIMIT 1")[0]
    assert (entry["before"], entry["after"]) == ({"rate": "50/s"}, {"rate": "100/min"})
    assert all_of(db, "SELECT changed_at FROM jobq.queue")[0]["changed_at"] > first

    number = len(all_of(db, "SELECT FROM jobq.audit"))
    again = configure(db, "jobq", "mail", actor="bob", rate="100/60s", limit=20)
    assert not again.changed
    assert len(all_of(db, "SELECT FROM jobq.audit")) == number

    cleared = configure(db, "jobq", "mail", actor="bob", limit=None, rate=None, groups=None)
    assert not cleared.after.limited
    (row,) = all_of(db, "SELECT * FROM jobq.queue")
    assert {value for name, value in row.items() if name.startswith(("max", "rate", "group"))} == {None}
    assert row["paused_at"] is not None


@pytest.mark.parametrize(
    "wanted",
    [{"limit": 0}, {"limit": True}, {"rate": "0/s"}, {"burst": 3}, {"groups": "fifo"}, {"group_rate": "5/s"}],
)
def test_what_is_refused_changes_nothing(db: Conn, wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(wanted))):
        configure(db, "jobq", "mail", actor="ann", **wanted)
    assert all_of(db, "SELECT FROM jobq.queue") == all_of(db, "SELECT FROM jobq.audit") == []


@pytest.mark.parametrize("name", ["", "x" * 101, "a\0b", "\ud800", 7])
def test_a_name_that_no_queue_can_have(db: Conn, name: Any) -> None:
    with pytest.raises(InvalidOption, match="queue"):
        configure(db, "jobq", name, actor="ann", limit=1)


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "\ud800", None])
def test_a_key_that_no_group_can_have(db: Conn, key: Any) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair")
    with pytest.raises(InvalidOption, match="group"):
        configure_group(db, "jobq", "mail", key, limit=1, actor="ann")


def test_jobs_that_run_already_count_against_a_new_limit(db: Conn) -> None:
    running = [add_job(db, queue="mail", state="running", worker_id=uuid.uuid4()) for _ in range(3)]
    elsewhere = add_job(db, queue="pdf", state="running")
    ready = [add_job(db, queue="mail") for _ in range(5)]

    configure(db, "jobq", "mail", actor="ann", limit=4)

    assert {row["id"] for row in all_of(db, "SELECT id FROM jobq.job WHERE limited")} == set(running)
    assert elsewhere not in running
    assert claim(db) == ready[:1]
    assert claim(db) == []


def test_a_limit_below_what_runs_lets_that_finish_and_admits_none(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", limit=4)
    ready = [add_job(db, queue="mail") for _ in range(8)]
    assert claim(db) == ready[:4]
    configure(db, "jobq", "mail", actor="ann", limit=2)
    assert claim(db) == []
    db.execute("DELETE FROM jobq.job WHERE id = ANY (%s)", (ready[:2],))
    assert claim(db) == []
    db.execute("DELETE FROM jobq.job WHERE id = %s", (ready[2],))
    assert claim(db) == ready[4:5]


def test_a_running_job_that_somebody_holds_for_a_moment_counts_too(db: Conn, other: Conn) -> None:
    held = add_job(db, queue="mail", state="running")
    free = add_job(db, queue="mail", state="running")
    with other.transaction():
        other.execute("UPDATE jobq.job SET progress = '{}' WHERE id = %s", (held,))
        setting = threading.Thread(target=lambda: configure(db, "jobq", "mail", actor="ann", limit=2))
        setting.start()
        asleep = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: all_of(other, asleep), what="the change to have met the held row")
    setting.join()
    assert {row["id"] for row in all_of(db, "SELECT id FROM jobq.job WHERE limited")} == {held, free}


def test_nobody_is_waited_for_without_end(db: Conn, other: Conn) -> None:
    held = add_job(db, queue="mail", state="running")
    with other.transaction():
        other.execute("SELECT FROM jobq.job WHERE id = %s FOR UPDATE", (held,))
        assert configure(db, "jobq", "mail", actor="ann", limit=2).changed


def test_a_claim_in_progress_and_a_change_follow_one_another(db: Conn, other: Conn, database_url: str) -> None:
    configure(db, "jobq", "mail", actor="ann", limit=10)
    for _ in range(10):
        add_job(db, queue="mail")
    outcome: list[Any] = []
    with other.transaction():
        assert len(claim(other, want=3)) == 3
        setting = threading.Thread(
            target=lambda: outcome.append(configure(db, "jobq", "mail", actor="ann", limit=4))
        )  # fmt: skip
        setting.start()
        wait_until(lambda: blocked(other), what="the change to wait for the claim")
        assert outcome == []
    setting.join()
    assert outcome[0].changed
    assert len(claim(other)) == 1

    with psycopg.connect(database_url, autocommit=True) as third:
        with db.transaction():
            configure(db, "jobq", "mail", actor="ann", limit=5)
            # A claim does not wait: it is made again in a moment.
            locked = third.execute(
                "SELECT id, task FROM jobq.claim_limited(%s, 'mail', 10)", (uuid.uuid4(),)
            ).fetchall()
            assert locked == [(None, "locked")]
        assert len(claim(third)) == 1


def test_many_claims_and_changes_at_once_never_pass_the_limit_in_force(db: Conn, database_url: str) -> None:
    configure(db, "jobq", "mail", actor="ann", limit=5)
    db.execute("INSERT INTO jobq.job (task, queue) SELECT 'mail.send', 'mail' FROM generate_series(1, 400)")
    stop = threading.Event()
    failed: list[BaseException] = []
    rounds = [0]

    def work() -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as own:
                while not stop.is_set():
                    claim(own, want=7)
                    own.execute(
                        "DELETE FROM jobq.job WHERE id = ANY (ARRAY(SELECT id FROM jobq.job WHERE state = 'running' "
                        "ORDER BY random() LIMIT 2 FOR UPDATE SKIP LOCKED))"
                    )
                    rounds[0] += 1
        except BaseException as error:  # told below
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    count = "SELECT count(*) AS n FROM jobq.job WHERE state = 'running'"
    try:
        for limit in (9, 2, 7, 1, 12, 3) * 2:
            configure(db, "jobq", "mail", actor="ann", limit=limit)
            left = all_of(db, count)[0]["n"]
            seen = rounds[0]
            while rounds[0] < seen + 6 and not failed:
                running = all_of(db, count)[0]["n"]
                # What the limit before admitted goes on; nothing beyond the new one begins.
                assert running <= max(limit, left), (running, limit, left)
                left = min(left, running)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []


def test_groups_with_waiting_jobs_get_a_turn_when_more_may_begin(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="limited:1")
    jobs = [add_job(db, queue="mail", group_key=key) for key in "aabbb"]
    assert sorted(claim(db)) == [jobs[0], jobs[2]]
    assert claim(db) == []
    assert turns(db) == []

    configure(db, "jobq", "mail", actor="ann", limit=50)
    assert turns(db) == [], "the queue's own limit is nothing that a group waits for"
    configure(db, "jobq", "mail", actor="ann", groups="limited:2")
    assert turns(db) == ["a", "b"]
    assert sorted(claim(db)) == [jobs[1], jobs[3]]
    assert claim(db) == []
    assert turns(db) == []

    assert configure_group(db, "jobq", "mail", "b", limit=3, actor="ann")
    assert turns(db) == ["b"]
    assert claim(db) == [jobs[4]]


def test_groups_switched_off_are_served_to_the_end(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="ordered")
    jobs = [add_job(db, queue="mail", group_key="a") for _ in range(3)]
    assert claim(db) == jobs[:1]
    configure(db, "jobq", "mail", actor="ann", groups=None)
    assert turns(db) == ["a"]
    assert claim(db) == jobs[1:]
    assert all_of(db, "SELECT FROM jobq.job WHERE state <> 'running'") == []


def test_a_rate_that_was_used_up_for_long_does_not_stop_a_quick_one(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", rate="2/day")
    jobs = [add_job(db, queue="mail") for _ in range(4)]
    assert claim(db) == jobs[:1]
    assert claim(db) == []
    configure(db, "jobq", "mail", actor="ann", rate="1000/s", burst=1)
    wait_until(lambda: claim(db) == jobs[1:2], what="a start by the new rate")

    configure(db, "jobq", "mail", actor="ann", rate="2/day")
    configure(db, "jobq", "mail", actor="ann", rate=None)
    claim(db)
    assert all_of(db, "SELECT FROM jobq.job WHERE state = 'ready'") == []
    assert all_of(db, "SELECT FROM jobq.rate_state WHERE paid_until > now()") == []


def test_a_rate_of_groups_that_was_used_up_for_long_does_not_stop_them(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair", group_rate="1/day")
    jobs = [add_job(db, queue="mail", group_key=key) for key in "aabb"]
    assert len(claim(db)) == 2
    assert claim(db) == []
    configure(db, "jobq", "mail", actor="ann", group_rate=None)
    assert sorted(claim(db)) == [jobs[1], jobs[3]]


def test_starts_taken_in_advance_are_capped_at_a_burst_of_the_new_rate(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", rate="10000/s", burst=10_000_000)
    db.execute(
        "INSERT INTO jobq.rate_state (queue, group_key, paid_until) VALUES ('mail', '', now() + interval '1000 s')"
    )
    configure(db, "jobq", "mail", actor="ann", rate="1/h", burst=3)
    (row,) = all_of(db, "SELECT paid_until - now() AS ahead FROM jobq.rate_state")
    assert 3 * 3600 - 60 < row["ahead"].total_seconds() < 3 * 3600 + 1


def test_one_group_is_limited_for_itself(db: Conn) -> None:
    with pytest.raises(InvalidOption, match="no rule for its groups"):
        configure_group(db, "jobq", "mail", "a", limit=3, actor="ann")
    configure(db, "jobq", "mail", actor="ann", groups="fair:1")
    changed = all_of(db, "SELECT changed_at FROM jobq.queue")[0]["changed_at"]
    jobs = [add_job(db, queue="mail", group_key=key) for key in "aaabb"]
    assert configure_group(db, "jobq", "mail", "a", limit=2, actor="ann", reason="they pay")
    assert not configure_group(db, "jobq", "mail", "a", limit=2, actor="ann")
    assert all_of(db, "SELECT changed_at FROM jobq.queue")[0]["changed_at"] > changed
    assert sorted(claim(db)) == [jobs[0], jobs[1], jobs[3]]
    assert configure_group(db, "jobq", "mail", "a", limit=None, actor="ann")
    assert not configure_group(db, "jobq", "mail", "a", limit=None, actor="ann")
    assert all_of(db, "SELECT FROM jobq.rate_state") == []
    entries = all_of(db, "SELECT * FROM jobq.audit WHERE action = 'configure_group' ORDER BY id")
    assert [(entry["target"], entry["before"], entry["after"], entry["reason"]) for entry in entries] == [
        ({"queue": "mail", "group": "a"}, {"limit": None}, {"limit": 2}, "they pay"),
        ({"queue": "mail", "group": "a"}, {"limit": 2}, {"limit": None}, None),
    ]


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, 2**31])
def test_a_limit_of_a_group_that_cannot_be(db: Conn, limit: Any) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair")
    with pytest.raises(InvalidOption, match="limit="):
        configure_group(db, "jobq", "mail", "a", limit=limit, actor="ann")


def test_an_ordered_queue_has_no_limits_of_single_groups(db: Conn) -> None:
    configure(db, "jobq", "mail", actor="ann", groups="fair")
    for key in "ab":
        configure_group(db, "jobq", "mail", key, limit=5, actor="ann")
    configure(db, "jobq", "mail", actor="ann", groups="ordered")
    entry = all_of(db, "SELECT * FROM jobq.audit ORDER BY id DESC LIMIT 1")[0]
    assert entry["after"] == {"groups": "ordered", "limits of groups taken away": 2}
    jobs = [add_job(db, queue="mail", group_key="a") for _ in range(3)]
    assert claim(db) == jobs[:1]
    with pytest.raises(InvalidOption, match="is ordered, which runs one job of a group at a time"):
        configure_group(db, "jobq", "mail", "a", limit=2, actor="ann")


def test_the_handle_sets_in_a_transaction_of_its_own(database_url: str, db: Conn, monkeypatch: Any) -> None:
    monkeypatch.setenv("JOBQ_ACTOR", "deploy 7")
    q = JobQ(database_url)
    mail = q.queue("mail")
    assert mail.settings() == QueueSettings()
    assert mail.set(limit=20, rate="50/s", burst=10, groups="fair", reason="launch").changed
    assert mail.settings().describe() == (
        "At most 20 jobs run at a time; at most 50 starts a second, up to 10 of them at once; the groups take turns."
    )
    assert mail.group("customer:42").set(limit=3)
    assert mail.pause(reason="down", actor="ann")
    assert not mail.pause()
    assert mail.settings().paused_at is not None
    assert mail.resume()
    with pytest.raises(UnknownQueue):
        q.queue("nosuch").pause()
    entries = all_of(db, "SELECT * FROM jobq.audit ORDER BY id")
    assert [(entry["actor"], entry["action"]) for entry in entries] == [
        ("deploy 7", "configure"), ("deploy 7", "configure_group"), ("ann", "pause"), ("deploy 7", "resume"),
    ]  # fmt: skip
    assert entries[2]["after"]["reason"] == "down"
    assert repr(mail) == "<queue 'mail'>"
    q.close()


def test_the_handle_sets_in_the_callers_transaction(database_url: str, db: Conn) -> None:
    q = JobQ(database_url)
    with psycopg.connect(database_url) as own:
        q.queue("mail").set(limit=1, connection=own)
        assert q.queue("mail").settings(connection=own).limit == 1
        own.rollback()
    assert q.queue("mail").settings() == QueueSettings()

    engine = sqlalchemy.create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        q.queue("mail").set(limit=2, groups="fair", connection=connection)
        q.queue("mail").group("a").set(limit=1, connection=connection)
        q.queue("mail").pause(connection=connection)
    assert q.queue("mail").settings().limit == 2
    assert all_of(db, "SELECT after FROM jobq.audit WHERE action = 'pause'")[0]["after"]["paused"] is True
    engine.dispose()

    with psycopg.connect(database_url) as closed:
        pass
    with pytest.raises(ConnectionNotUsable):
        q.queue("mail").set(limit=3, connection=closed)
    with pytest.raises(UnsupportedConnection):
        q.queue("mail").set(limit=3, connection=engine)  # type: ignore[arg-type]
    q.close()


async def test_the_twins_for_event_loops(database_url: str) -> None:
    q = JobQ(database_url)
    mail = q.queue("mail")
    assert (await mail.set_async(limit=2, groups="fair")).changed
    assert await mail.group("a").set_async(limit=1)
    assert await mail.pause_async()
    assert await mail.resume_async()
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    async with engine.begin() as connection:
        await mail.set_async(limit=3, connection=connection)
    await engine.dispose()
    assert (await mail.settings_async()).limit == 3
    await q.aclose()


@pytest.mark.parametrize("name", ["", "x" * 101, "a\0b", 7])
def test_a_handle_is_refused_where_the_name_cannot_be(name: Any) -> None:
    q = JobQ("postgresql://nowhere/none")
    with pytest.raises(InvalidOption, match="queue"):
        q.queue(name)
    with pytest.raises(InvalidOption, match="group"):
        q.queue("mail").group("x" * 201)


def test_a_worker_that_is_listening_need_not_exist(db: Conn) -> None:
    add_worker(db, queues=["mail"])
    assert operations.configure(db, "jobq", "mail", actor="ann", limit=1).changed
