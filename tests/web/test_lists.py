"""Queues, failures, workers and schedules: a page at a time, filtered and sorted; bounded however many there are."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq._core.fingerprint import fingerprint
from tests.support.rows import add_attempt, add_finished, add_job, add_worker
from tests.support.web import Conn, words

MOST = 300_000
LISTS = ("/queues", "/failures", "/workers", "/schedules")


@pytest.fixture
def many(db: Conn) -> None:
    """More of everything than one page has."""
    db.execute(
        "INSERT INTO jobq.job (task, queue, run_at) SELECT 'task' || n, 'queue-' || lpad(n::text, 4, '0'),"
        " now() - n * interval '1 second' FROM generate_series(1, 230) AS n, generate_series(1, 1 + n % 3)"
    )
    db.execute(
        "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,"
        " created_at, finished_at, error, args, headers) SELECT nextval('jobq.job_id_seq'), 1, 1, 1, 5, 0,"
        " 'queue-' || lpad((n % 230 + 1)::text, 4, '0'), 'task' || n % 7, 'failed', now(), now(),"
        " now() - n * interval '1 second', 'TenantError: tenant ' || translate(n::text, '0123456789', 'abcdefghij') || ' '"
        " || repeat('refused it ', 20), '{}', '{}'"
        " FROM generate_series(1, 700) AS n"
    )
    db.execute(
        "INSERT INTO jobq.schedule (name, task, cron, paused_at) SELECT 'schedule-' || lpad(n::text, 4, '0'), 'task' || n % 7,"
        " '0 7 * * *', CASE WHEN n % 100 = 0 THEN now() END FROM generate_series(1, 230) AS n"
    )
    for n in range(120):
        add_worker(db, host=f"box-{n:03}", queues=[f"queue-{n + 1:04}"], ago=100 if n == 7 else 0, running=n % 5)


def shown(text: str) -> list[str]:
    """The first cell of each row of the page's first table."""
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    return [words(row).strip() for row in re.findall(r"<tr[^>]*>\s*<t[hd][^>]*>(.*?)</t[hd]>", body, re.DOTALL)]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("path", "number"), [("/queues", 230), ("/failures", 700), ("/workers", 120), ("/schedules", 230)]
)
def test_pages_have_each_row_once(client: FlaskClient, path: str, number: int) -> None:
    found: list[str] = []
    at: str | None = path
    while at:
        text = client.get(at).text
        assert len(text.encode()) < MOST
        rows = shown(text)
        assert 0 < len(rows) <= 50
        found += rows
        following = re.search(r'<a href="([^"]+)" rel="next">', text)
        at = following[1].replace("&amp;", "&") if following else None
    assert len(found) == len(set(found)) == number
    assert f"{number:,}" in words(client.get(path).text)
    # Behind the last there is nothing, and the way back.
    beyond = client.get(f"{path}?page=99")
    assert (beyond.status_code, shown(beyond.text)) == (200, [])
    assert 'rel="prev"' in beyond.text


@pytest.mark.usefixtures("many")
def test_every_page_is_small(client: FlaskClient, db: Conn) -> None:
    job = add_finished(db, "failed", task="mail", error="boom " * 5_000, args={"text": "x" * 500_000})
    for n in range(100):
        add_attempt(db, job, claims=n, attempt=n, message="boom " * 1_000, traceback="line of a traceback\n" * 1_000)
    group = fingerprint("mail", "boom " * 60)
    for path in (
        *LISTS,
        "/",
        "/system",
        "/audit",
        "/jobs",
        "/queue?name=queue-0001",
        f"/jobs/{job}",
        f"/failures/{group}",
    ):
        response = client.get(path)
        assert response.status_code == 200
        assert len(response.data) < MOST, path


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("/queues", "queue-0001"),
        ("/queues?sort=-queue", "queue-0230"),
        ("/queues?sort=-oldest", "queue-0230"),
        ("/queues?sort=oldest", "queue-0001"),
        ("/queues?sort=-ready&text=QUEUE-000", "queue-0002"),
        ("/queues?text=-0017", "queue-0017"),
        ("/workers?sort=-worker", "box-119"),
        ("/workers?sort=heartbeat", "box-007"),
        ("/workers?text=silent", "box-007"),
        ("/workers?text=queue-0033", "box-032"),
        ("/schedules?sort=-schedule", "schedule-0230"),
        ("/schedules?text=paused", "schedule-0100"),
        ("/schedules?text=task3&sort=-schedule", "schedule-0227"),
        ("/failures?sort=-last", "TenantError: tenant b "),
        ("/failures?sort=last", "TenantError: tenant haa "),
        ("/failures?text=TENANT+BAJ", "TenantError: tenant baj "),
        ("/failures?text=queue-0018&sort=-last", "TenantError: tenant bh "),
    ],
)
def test_sorting_and_filtering(client: FlaskClient, path: str, first: str) -> None:
    assert shown(client.get(path).text)[0].startswith(first)


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "wrong", ["sort=size", "sort=--x", "page=0", "page=x", "page=-1", "page=9999999", "text=%00", "text=" + "x" * 201]
)
def test_what_a_list_cannot_do(client: FlaskClient, path: str, wrong: str) -> None:
    assert client.get(f"{path}?{wrong}").status_code == 400


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", LISTS)
def test_a_filter_that_finds_nothing_says_so_and_keeps_its_text(client: FlaskClient, path: str) -> None:
    text = client.get(f"{path}?text=%3Cnosuch%3E&sort=-{'jobs' if path == '/failures' else path[1:-1]}").text
    assert re.search(r"No (queue|group|worker|schedule) matches", text)
    assert 'value="&lt;nosuch&gt;"' in text


def test_a_group_of_failures_has_one_number_on_all_pages(
    make_app: Callable[..., Flask], database_url: str, db: Conn
) -> None:
    db.execute(
        "INSERT INTO jobq.job_history (id, claims, attempt, max_attempts, priority, crashes, queue, task, state, run_at,"
        " created_at, finished_at, error, args, headers) SELECT nextval('jobq.job_id_seq'), 1, 1, 1, 5, 0, 'q', 'pay',"
        " 'failed', now(), now(), now() - n * interval '1 second',"
        " CASE WHEN n % 100 = 0 THEN 'KeyError' ELSE 'refused ' || n END, '{}', '{}'"
        " FROM generate_series(1, 3500) AS n"
    )
    client = make_app(database_url).test_client()
    group = fingerprint("pay", "KeyError")

    def counts() -> set[str]:
        found = {
            re.findall(rf'failures/{group}.*?data-label="jobs">([\d,]+)<', client.get(at).text, re.DOTALL)[0]
            for at in ("/", "/failures")
        }
        return found | set(re.findall(r"([\d,]+) failed", words(client.get(f"/failures/{group}").text)))

    assert counts() == {"35"}
    # What this process knows of earlier failures hides none that comes or goes.
    add_finished(db, "failed", task="pay", error="KeyError")
    assert counts() == {"36"}
    db.execute("DELETE FROM jobq.job_history WHERE error = 'KeyError' AND id % 2 = 0")
    (left,) = db.execute("SELECT count(*)::text FROM jobq.job_history WHERE error = 'KeyError'").fetchall()[0]
    assert counts() == {left}
    # The same job fails again, of another cause.
    db.execute("UPDATE jobq.job_history SET error = 'other', finished_at = now() WHERE error = 'KeyError'")
    assert client.get(f"/failures/{group}").status_code == 404


def test_a_queue_that_nobody_serves_is_not_open(client: FlaskClient, db: Conn) -> None:
    add_job(db, queue="lonely")
    add_job(db, queue="mail")
    add_worker(db, queues=["mail"])
    add_worker(db, queues=["lonely"], ago=100)
    text = words(client.get("/queues").text)
    assert "unserved" in text
    assert shown(client.get("/queues?text=unserved").text) == ["lonely"]
    assert shown(client.get("/queues?sort=-status").text)[0] == "lonely"
    add_worker(db)
    assert shown(client.get("/queues?text=unserved").text) == []


def test_a_long_error_is_folded(client: FlaskClient, db: Conn) -> None:
    short, long = (
        add_finished(db, "failed", error="KeyError: 'a'"),
        add_finished(db, "failed", error="boom\n" + "line\n" * 500),
    )
    assert 'id="whole-error"' not in client.get(f"/jobs/{short}").text
    text = client.get(f"/jobs/{long}").text
    assert re.search(r'<details class="more" id="whole-error"><summary>Show all 2,505 characters</summary>', text)
    # The whole stands in the fold alone.
    assert len(re.findall(r"(?:line\n){400}", text)) == 1
