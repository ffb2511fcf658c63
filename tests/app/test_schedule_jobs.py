"""What a schedule gives its jobs beyond a task and arguments: group, key, expiry and headers; in Python, on the command line
and on the page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from psycopg import AsyncConnection

from jobq import InvalidOption, JobQ, operations, queries
from jobq._worker.inline import drain
from jobq._worker.runner.task_info import describe
from jobq._worker.sources.schedule_tick import Ticked, tick
from jobq.cli import main
from jobq.cron import Every
from jobq.schedule import Schedule
from tests.support.rows import add_worker
from tests.support.web import token

Conn = psycopg.Connection[Any]
START = datetime(2026, 3, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

q = JobQ()


@q.task(headers={"team": "mail", "tags": ["task"]})
def digest() -> None: ...


@q.task
def other() -> None: ...


def add(db: Conn, name: str = "s", **options: Any) -> None:
    """Make a schedule of every hour whose first tick is at START."""
    made = Schedule(name=name, task=options.pop("task", digest.name), when=Every(HOUR), **options)
    operations.set_schedule(db, "jobq", made, actor="ann", replace=True)
    db.execute("UPDATE jobq.schedule SET next_at = %s WHERE name = %s", (START, name))


async def look(url: str, now: datetime = START) -> Ticked:
    """What one worker's look at `now` does."""
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        done = await tick(connection, "jobq", now=now)
        assert done is not None
        return done


def jobs(db: Conn, columns: str) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT {columns} FROM jobq.job ORDER BY id".encode()).fetchall()


def ticks(db: Conn) -> list[tuple[datetime, int, bool]]:
    return [(found.tick, found.job_id, found.skipped) for found in queries.schedule_ticks(db, "jobq", "s")][::-1]


# --- Ticks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_tick_is_a_job_with_all_of_it(db: Conn, database_url: str, key: str | None) -> None:
    db.execute("INSERT INTO jobq.queue (name, group_mode) VALUES ('mail', 'ordered')")
    add(
        db,
        args={"n": 1},
        tick_argument="at",
        queue="mail",
        priority=8,
        max_attempts=3,
        timeout=9.5,
        headers={"tags": ["x"]},
        group="ann",
        key=key,
        expires_in=600.0,
    )
    assert await look(database_url) == Ticked("s", 1)
    at = START.isoformat()
    [found] = jobs(
        db,
        "task, args, queue, priority, max_attempts, timeout, headers, group_key, state, key, key_holds, key_scope, "
        "expires_at - run_at BETWEEN interval '599 s' AND interval '601 s', now() - run_at < interval '1 min'",
    )
    assert found == (
        digest.name, {"n": 1, "at": at}, "mail", 8, 3, 9.5, {"tags": ["x"], "jobq.schedule": "s", "jobq.tick": at}, "ann",
        "waiting", key, None if key is None else "until_finished", None, True, True,
    )  # fmt: skip
    [(_, job, skipped)] = ticks(db)
    assert (jobs(db, "id"), skipped) == ([(job,)], False)
    # Its group has a turn.
    assert db.execute("SELECT count(*) FROM jobq.group_ready WHERE group_key = 'ann'").fetchone() == (1,)


async def test_a_tick_is_skipped_while_a_job_holds_the_key(db: Conn, database_url: str) -> None:
    add(db, key="sync")
    assert await look(database_url) == Ticked("s", 1)
    [(first,)] = jobs(db, "id")
    assert await look(database_url, START + HOUR) == Ticked("s", 0, 1)
    assert ticks(db) == [(START, first, False), (START + HOUR, first, True)]
    info = queries.schedule(db, "jobq", "s")
    assert info is not None
    # Its last tick was skipped, its last job is the one before; and it goes on.
    assert (info.last_tick, info.last_job_id, info.last_error) == (START + HOUR, first, None)
    assert info.next_at == START + 2 * HOUR
    drain(q, db)
    assert await look(database_url, START + 2 * HOUR) == Ticked("s", 1)
    [(third,)] = jobs(db, "id")
    assert ticks(db)[-1] == (START + 2 * HOUR, third, False)


async def test_of_ticks_that_were_missed_one_gets_the_key(db: Conn, database_url: str) -> None:
    add(db, key="sync", missed="all")
    assert await look(database_url, START + 2 * HOUR) == Ticked("s", 1, 2)
    [(job, at)] = jobs(db, "id, headers ->> 'jobq.tick'")
    assert at == START.isoformat()
    assert ticks(db) == [(START + n * HOUR, job, n > 0) for n in range(3)]


async def test_the_key_is_the_tasks(db: Conn, database_url: str) -> None:
    """Another task's job with this key is no conflict; a job of the task that was enqueued elsewhere is one."""
    other.options(key="sync", key_holds="until_finished").enqueue(db)
    add(db, key="sync")
    assert await look(database_url) == Ticked("s", 1)
    drain(q, db)
    holder = digest.options(key="sync").enqueue(db).id
    assert await look(database_url, START + HOUR) == Ticked("s", 0, 1)
    assert ticks(db)[-1] == (START + HOUR, holder, True)


async def test_a_key_that_is_about_to_be_taken_delays_the_tick(db: Conn, database_url: str) -> None:
    """Whether that transaction commits is not known yet: the tick is neither inserted nor skipped."""
    add(db, key="sync")
    with psycopg.connect(database_url) as caller:
        digest.options(key="sync").enqueue(caller)
        async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("SET lock_timeout = '100ms'")
            done = await tick(connection, "jobq", now=START)
        assert done is not None
        assert (done.jobs, done.skipped, done.transient) == (0, 0, True)
        caller.rollback()
    assert ticks(db) == []
    assert await look(database_url) == Ticked("s", 1)


def test_running_one_whose_key_is_held_says_so(db: Conn) -> None:
    add(db, key="sync", group="ann", expires_in=600.0, headers={"a": 1})
    job = operations.run_schedule(db, "jobq", "s", actor="ann")
    assert jobs(db, "id, key, group_key, headers, expires_at IS NOT NULL") == [
        (job, "sync", "ann", {"a": 1, "jobq.schedule": "s"}, True)
    ]
    with pytest.raises(InvalidOption, match=f"schedule 's': its key 'sync' is held by job {job}: try again"):
        operations.run_schedule(db, "jobq", "s", actor="ann")
    assert [row[0] for row in db.execute("SELECT action FROM jobq.audit ORDER BY id")] == [
        "schedule_set",
        "schedule_run",
    ]
    drain(q, db)
    assert operations.run_schedule(db, "jobq", "s", actor="ann") > job


# --- Python ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def app(database_url: str) -> Iterator[JobQ]:
    with closing(JobQ(database_url)) as made:
        yield made


def test_what_code_declares(app: JobQ) -> None:
    task = app.task(headers={"team": "mail", "tags": ["task"]})(digest.function)
    app.schedule(
        "@daily", name="a", group="ann", key="k", expires_in=timedelta(minutes=10), headers={"tags": ["nightly"]}
    )(task)
    app.schedule("@daily", name="b")(task)
    a, b = app.schedules["a"], app.schedules["b"]
    assert (a.group, a.key, a.expires_in, a.headers) == ("ann", "k", 600.0, {"team": "mail", "tags": ["nightly"]})
    assert (b.group, b.key, b.expires_in, b.headers) == (None, None, None, {"team": "mail", "tags": ["task"]})
    # The dispatcher hears of it.
    facts = {found.name: found for found in describe(app).schedules}
    assert (facts["a"].group_key, facts["a"].key, facts["a"].expires_in) == ("ann", "k", 600.0)
    assert json.loads(facts["a"].headers) == a.headers


def test_what_is_added_at_run_time(app: JobQ, db: Conn) -> None:
    task = app.task(headers={"team": "mail"})(digest.function)
    options: dict[str, Any] = {"group": "ann", "key": "k", "expires_in": 600, "headers": {"tags": ["x"]}}
    assert app.add_schedule(task, "@daily", name="a", actor="ann", **options)
    [info] = queries.schedules(db, "jobq")
    assert (info.group_key, info.key, info.expires_in, info.headers) == (
        "ann", "k", 600.0, {"team": "mail", "tags": ["x"]},
    )  # fmt: skip
    assert not app.add_schedule(task, "@daily", name="a", actor="ann", replace=True)
    [info] = queries.schedules(db, "jobq")
    assert (info.group_key, info.key, info.expires_in, info.headers) == (None, None, None, {"team": "mail"})
    [(before, after)] = db.execute("SELECT before, after FROM jobq.audit ORDER BY id DESC LIMIT 1").fetchall()
    assert {name: before[name] for name in ("group_key", "key", "expires_in")} == {
        "group_key": "ann", "key": "k", "expires_in": 600.0,
    }  # fmt: skip
    assert not {"group_key", "key", "expires_in"} & after.keys()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": ""}, "group"),
        ({"key": "k" * 501}, "key of 501 characters"),
        ({"expires_in": 0}, "expires_in=0"),
        ({"expires_in": timedelta(days=-1)}, "expires_in="),
        ({"headers": ["x"]}, "headers="),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_declared(app: JobQ, options: dict[str, Any], said: str) -> None:
    task = app.task(digest.function)
    with pytest.raises(InvalidOption, match=said):
        app.schedule("@daily", **options)(task)


# --- The command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("JOBQ_DATABASE_URL", database_url)
    monkeypatch.setenv("JOBQ_ACTOR", "ann")

    def call(*args: str, expect: int = 0) -> Result:
        result = CliRunner().invoke(main, ["schedules", *args], prog_name="jobq")
        assert result.exit_code == expect, result.output
        return result

    return call


async def test_on_the_command_line(run: Callable[..., Result], db: Conn, database_url: str) -> None:
    add_worker(db, tasks=[digest.name])
    run("add", "s", "--task", digest.name, "--every", "1h", "--group", "ann", "--key", "sync", "--expires-in", "10m",
        "--headers", '{"tags": ["x"]}')  # fmt: skip
    [listed] = json.loads(run("list", "--json").stdout)["schedules"]
    told = {name: listed[name] for name in ("group_key", "key", "expires_in", "headers")}
    assert told == {"group_key": "ann", "key": "sync", "expires_in": 600.0, "headers": {"tags": ["x"]}}
    db.execute("UPDATE jobq.schedule SET next_at = %s", (START,))
    await look(database_url)
    await look(database_url, START + HOUR)
    [(job,)] = jobs(db, "id")
    lines = run("show", "s").stdout
    for said in ("ann", "sync", "10 min after a tick", '{"tags": ["x"]}', f"skipped: job {job} held the key"):
        assert said in lines
    shown = json.loads(run("show", "s", "--json").stdout)["ticks"]
    assert [(found["job_id"], found["skipped"]) for found in shown] == [(job, True), (job, False)]
    assert f"its key 'sync' is held by job {job}" in run("run", "s", expect=64).output


def test_headers_that_are_no_object(run: Callable[..., Result]) -> None:
    for text in ("{", "[1]"):
        assert "--headers" in run("add", "s", "--task", "t", "--every", "1h", "--headers", text, expect=64).output


# --- The page ----------------------------------------------------------------------------------------------------------


def post(client: FlaskClient, **form: Any) -> Any:
    return client.post("/schedules/add", data={"csrf": token(client, "/schedules"), **form})


async def test_on_the_page(client: FlaskClient, db: Conn, database_url: str) -> None:
    answer = post(
        client, schedule="s", task=digest.name, every="1h", group="ann", key="sync", expires_in="10m",
        headers='{"tags": ["x"], "password": "hush"}',
    )  # fmt: skip
    assert answer.status_code in (302, 303), answer.text
    [info] = queries.schedules(db, "jobq")
    assert (info.group_key, info.key, info.expires_in) == ("ann", "sync", 600.0)
    assert info.headers == {"tags": ["x"], "password": "hush"}
    db.execute("UPDATE jobq.schedule SET next_at = %s", (START,))
    await look(database_url)
    await look(database_url, START + HOUR)
    text = client.get("/schedules/s").text.replace("\xa0", " ")
    for said in (
        "<dt>Group</dt><dd>",
        "<dt>Key</dt><dd>",
        "<dt>Expires</dt><dd>10 min after a tick",
        "<dt>Headers</dt>",
    ):
        assert said in text
    assert "hush" not in text
    assert text.count("skipped: that job held the key") == 1
    [shown] = (client.get("/api/schedules").json or {})["schedules"]
    assert (shown["group_key"], shown["key"], shown["expires_in"]) == ("ann", "sync", 600.0)


def test_a_form_with_headers_that_are_no_object(client: FlaskClient) -> None:
    answer = post(client, schedule="s", task="t", every="1h", headers="[1]")
    assert answer.status_code == 400
    assert "headers: expected a JSON object" in answer.text
