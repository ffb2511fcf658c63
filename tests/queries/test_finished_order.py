"""Lists of finished jobs go by when they finished: none is lost or doubled between pages, whatever finishes meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from jobq import queries
from jobq._core.fingerprint import fingerprint
from jobq.cli import main
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries import Cursor
from tests.support.rows import add_finished, add_job
from tests.support.web import Conn, words

STATES = ("failed", "succeeded", "cancelled", "expired")


def spread(db: Conn, state: str, number: int) -> list[int]:
    """Put in jobs that finished in another order than they were enqueued; return their ids, the last that finished first."""
    ages = {
        add_finished(db, state, ago=(n * 7919) % 1000 + n / 100, error=f"error {n}"): (n * 7919) % 1000
        for n in range(number)
    }
    return sorted(ages, key=lambda id: ages[id])


def ids(rows: Sequence[Any]) -> list[int]:
    return [row.id for row in rows]


@pytest.mark.parametrize("state", STATES)
def test_what_finished_last_is_on_top_everywhere(client: FlaskClient, db: Conn, database_url: str, state: str) -> None:
    old = add_finished(db, state, ago=3600)
    wanted = spread(db, state, 20)
    db.execute("UPDATE jobq.job_history SET finished_at = now() WHERE id = %s", (old,))
    wanted = [old, *wanted]
    jobs = JobFilter(states=(state,))
    assert ids(queries.search_jobs(db, "jobq", jobs).rows) == wanted
    assert ids(queries.list_jobs(db, "jobq", jobs, limit=7)) == wanted[:7]
    assert ids(queries.search_jobs(db, "jobq", jobs, order="id").rows) == sorted(wanted, reverse=True)

    text = client.get(f"/jobs?q=state:{state}").text
    assert text.index(f'id="job-{old}"') < text.index(f'id="job-{wanted[1]}"')
    assert "newest first by finish time" in words(text)
    text = client.get(f"/jobs?q=state:{state}&order=id").text
    assert text.index(f'id="job-{max(wanted)}"') < text.index(f'id="job-{old}"')
    assert "newest first by id" in words(text)

    found = client.get(f"/api/jobs?state={state}&limit=5").json
    assert found is not None
    assert ([job["id"] for job in found["jobs"]], found["order"]) == (wanted[:5], "finished")
    more = client.get(f"/api/jobs?state={state}&limit=5&before={found['before']}").json
    assert more is not None
    assert [job["id"] for job in more["jobs"]] == wanted[5:10]

    listed = run(database_url, "--state", state, "--limit", "5")
    assert ([job["id"] for job in listed["jobs"]], listed["order"]) == (wanted[:5], "finished")
    further = run(database_url, "--state", state, "--before", listed["next_before"])
    assert [job["id"] for job in further["jobs"]] == wanted[5:]
    by_id = run(database_url, "--state", state, "--limit", "5", "--order", "id")
    assert [job["id"] for job in by_id["jobs"]] == sorted(wanted, reverse=True)[:5]
    assert by_id["next_before"] == by_id["jobs"][-1]["id"]


def run(database_url: str, *arguments: str) -> Any:
    result = CliRunner().invoke(main, ["--database-url", database_url, "jobs", "list", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("state:failed", 100_000),
        ("state:failed,cancelled", 100_000),
        ("state:succeeded,failed,cancelled,expired", 100_000),
        ("state:failed error:2", 13),
        ("error:1", 13),
        ("failure:" + fingerprint("mail.send", "error 1"), 13),
    ],
)
def test_pages_while_others_finish(db: Conn, text: str, reach: int) -> None:
    before_all = {state: spread(db, state, 30) for state in STATES}
    jobs = JobFilter.parse(text)
    wanted = [row.id for row in queries.list_jobs(db, "jobq", jobs, limit=1000)]
    assert len(wanted) >= 10
    found: list[int] = []
    cursor: Cursor | None = None
    for _ in range(200):
        page = queries.search_jobs(db, "jobq", jobs, limit=4, before=cursor, reach=reach)
        assert page.order == "finished"
        found += ids(page.rows)
        # At the same moment as rows that were shown, and now.
        for state in STATES:
            new = add_finished(db, state, error="error 12")
            if page.rows and state == "failed":
                db.execute(
                    "UPDATE jobq.job_history SET finished_at = %s WHERE id = %s", (page.rows[0].finished_at, new)
                )
        cursor = page.before
        if cursor is None:
            break
        # As it comes back from an address.
        cursor = Cursor.parse(str(cursor))
    assert found == wanted
    assert len(before_all) == 4


def test_jobs_that_finished_at_one_moment_are_told_apart_by_their_ids(db: Conn) -> None:
    made = [add_finished(db, "failed") for _ in range(25)]
    db.execute("UPDATE jobq.job_history SET finished_at = date_trunc('second', now())")
    found: list[int] = []
    cursor: Cursor | None = None
    while True:
        page = queries.search_jobs(db, "jobq", JobFilter(states=("failed",)), limit=4, before=cursor)
        found += ids(page.rows)
        cursor = page.before
        if cursor is None:
            break
    assert found == sorted(made, reverse=True)


def test_orders_that_cannot_be(client: FlaskClient, db: Conn) -> None:
    add_job(db)
    dead = add_finished(db, "failed")
    for options, says in (
        ({"order": "size"}, "expected one of id, finished"),
        ({"order": "finished"}, "jobs that have not finished fit the filter"),
        ({"before": Cursor(7), "order": "finished"}, "another order"),
    ):
        with pytest.raises(InvalidOption, match=says):
            queries.search_jobs(db, "jobq", JobFilter(), **options)
    for wrong in ("x", "-5", "5-", "1-2-3", "99999999999999999999", "9999999999999999999-1", "1 OR 1", "٣"):
        with pytest.raises(InvalidOption, match="before="):
            Cursor.parse(wrong)
        assert client.get("/jobs", query_string={"before": wrong}).status_code == 400
        assert client.get("/api/jobs", query_string={"before": wrong}).status_code == 400
    assert client.get("/jobs?order=finished").status_code == 400
    assert client.get(f"/jobs?q=state:failed&before={dead}&order=finished").status_code == 400
    # Live jobs and ids go by id, without a switch.
    assert "finish time" not in client.get("/jobs").text
    assert queries.search_jobs(db, "jobq", JobFilter(states=("failed",), ids=(dead,))).order == "id"


def test_an_id_leads_to_the_job(client: FlaskClient, db: Conn) -> None:
    live, dead = add_job(db), add_finished(db, "failed")
    for id in (live, dead):
        response = client.get(f"/jobs?q={id}")
        assert (response.status_code, response.location) == (303, f"/jobs/{id}")
        assert client.get(f"/jobs?q=id:{id}").status_code == 200
    assert "No job matches" in words(client.get("/jobs?q=99999").text)
    assert client.get(f"/jobs?q={live}+{dead}").status_code == 200
