"""What the database refuses of one workflow keeps no other from going on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from jobq import operations
from tests.apps import workflows as apps
from tests.support.jobs import Jobs
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess

q = apps.q

# A lack of locks or time is no fault of the map's: it is raised, and may be over at the next try.
REFUSES = """
CREATE FUNCTION public.refuses() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'no lock for this one' USING ERRCODE = '55P03';
END $$;
CREATE TRIGGER refuses BEFORE INSERT ON jobq.job FOR EACH ROW WHEN (NEW.task = 'number' AND NEW.node_item > 0)
    EXECUTE FUNCTION public.refuses();
"""


@pytest.fixture(autouse=True)
def configured(database_url: str) -> Iterator[None]:
    q.configure(database_url=database_url)
    yield
    q.close()


def test_a_map_that_cannot_be_expanded_keeps_no_other_from_it(jobs: Jobs, worker: Callable[..., WorkerProcess]) -> None:
    jobs.connection.execute(REFUSES.encode())
    with q.workflow("refused") as wf:
        apps.number.map(apps.numbers.node(1500).result)
    refused = wf.enqueue(jobs.connection)
    running = worker("--processes", "1", app="tests.apps.workflows:q")
    turns = "SELECT count(*) FROM jobq.workflow_turn WHERE kind = 'expand'"
    wait_until(lambda: jobs.one(turns) == 1, timeout=60, what="the map's turn")
    with q.workflow("other") as wf:
        end = apps.total.node(apps.add.map(apps.numbers.node(1500).result, 1).results)
    assert wf.enqueue(jobs.connection, end).result(timeout=90) == sum(range(1500)) + 1500
    assert refused.state() == "running"
    assert running.is_running()
    wait_until(
        lambda: "no lock for this one" in str(jobs.one("SELECT problems FROM jobq.worker")),
        timeout=30,
        what="the report",
    )
    jobs.connection.execute("DROP TRIGGER refuses ON jobq.job")
    assert jobs.one(turns) == 1


def test_a_map_whose_arguments_are_large_is_expanded_in_smaller_parts(jobs: Jobs) -> None:
    """About 64 MB of arguments at a time: a statement about 5,000 items would take minutes."""
    with q.workflow("large") as wf:
        apps.notify.map([f"{n}" for n in range(200)], subject="x" * 1_000_000)
    wf.enqueue(jobs.connection)
    assert 30 <= jobs.one("SELECT count(*) FROM jobq.job") <= 100
    left = jobs.one("SELECT from_item FROM jobq.workflow_turn WHERE kind = 'expand'")
    assert left == jobs.one("SELECT count(*) FROM jobq.job")
    while jobs.one("SELECT jobq.workflow_step()"):
        pass
    assert jobs.one("SELECT count(DISTINCT node_item) FROM jobq.job") == 200


def test_lost_items_of_a_map_whose_arguments_are_large_are_all_inserted_again(jobs: Jobs) -> None:
    with q.workflow("large") as wf:
        apps.notify.map([f"{n}" for n in range(100)], subject="x" * 1_000_000)
    run = wf.enqueue(jobs.connection)
    while jobs.one("SELECT jobq.workflow_step()"):
        pass
    ids = [row["id"] for row in jobs.all("SELECT id FROM jobq.job")]
    assert len(operations.delete(jobs.connection, "jobq", ids, actor="ann").done) == 100
    assert operations.retry_workflow(jobs.connection, "jobq", run.id, actor="ann").jobs == 100
    assert jobs.one("SELECT count(DISTINCT node_item) FROM jobq.job") == 100
