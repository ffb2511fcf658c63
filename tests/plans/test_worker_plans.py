"""The worker's statements keep their plans on an empty table, on one that was loaded and never analysed, and on one with a
million future jobs, a million ready ones and 100,000 dead index entries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from jobq import migrate
from jobq._worker.arrays import texts_array
from jobq._worker.lanes.cursor import everything, scan_parameters
from jobq._worker.timeouts import HOT
from tests.plans.explain import MODES, explain, kinds, rows_read
from tests.support.servers import postgres

# Two million jobs are inserted first.
pytestmark = pytest.mark.timeout(400)

WORKER = UUID("00000000-0000-0000-0000-000000000001")
QUEUES = ["default", "mail", "reports"]
PRIORITIES = [priority for priority in range(9, -1, -1) for _ in QUEUES]
LANES: dict[str, Any] = scan_parameters(everything((QUEUES * 10, PRIORITIES)))
CLAIM: dict[str, Any] = {
    **LANES,
    "ids": "{}",
    "claims": "{}",
    "started": "{}",
    "results": "{}",
    "seconds": "{}",
    "worker": WORKER,
    "want": 100,
}


@pytest.fixture(scope="module")
def full_database(server: postgres.Server) -> Iterator[str]:
    """1,000,000 future jobs, 1,000,000 ready ones, 500 running, and 100,000 dead entries that a held snapshot keeps.

    The planner knows of the future ones only.
    """
    with postgres.database(server) as url:
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO jobq.job (task, queue, priority, run_at) SELECT 't', "
                "(ARRAY['default', 'mail', 'reports'])[n % 3 + 1], n % 10, now() + n * interval '1 second' + interval '1 h' "
                "FROM generate_series(1, 1000000) AS n"
            )
            connection.execute(
                "INSERT INTO jobq.job (task, queue, state, worker_id, claims, attempt, started_at) "
                "SELECT 't', 'default', 'running', %s, 1, 1, now() FROM generate_series(1, 500)",
                (WORKER,),
            )
            connection.execute("ANALYZE jobq.job")
        with psycopg.connect(url) as holder, psycopg.connect(url, autocommit=True) as connection:
            # The snapshot keeps what is deleted below from being removed for good.
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM jobq.queue")
            connection.execute(
                "INSERT INTO jobq.job (task, run_at) SELECT 't', now() - interval '1 h' FROM generate_series(1, 100000)"
            )
            connection.execute("DELETE FROM jobq.job WHERE run_at < now() - interval '30 min'")
            connection.execute("INSERT INTO jobq.job (task) SELECT 't' FROM generate_series(1, 1000000)")
            yield url


@pytest.fixture(scope="module")
def empty_database(server: postgres.Server) -> Iterator[str]:
    """No job at all, and statistics that say so."""
    with postgres.database(server) as url:
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE jobq.job")
        yield url


@pytest.fixture(scope="module")
def loaded_database(server: postgres.Server) -> Iterator[str]:
    """100,000 ready jobs that came at once, after statistics of an empty table."""
    with postgres.database(server) as url:
        migrate.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE jobq.job SET (autovacuum_enabled = off)")
            connection.execute("ANALYZE jobq.job")
            connection.execute("INSERT INTO jobq.job (task) SELECT 't' FROM generate_series(1, 100000)")
            yield url


@pytest.fixture
def full(full_database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(full_database) as connection:
        yield connection


def running_ids(connection: psycopg.Connection[Any]) -> list[int]:
    rows = connection.execute("SELECT id FROM jobq.job WHERE worker_id = %s ORDER BY id LIMIT 100", (WORKER,))
    return [row[0] for row in rows]


def started(connection: psycopg.Connection[Any], ids: list[int]) -> list[int]:
    query = "SELECT (extract(epoch FROM started_at) * 1000000)::bigint FROM jobq.job WHERE id = ANY (%s) ORDER BY id"
    return [row[0] for row in connection.execute(query, (ids,))]


@pytest.mark.parametrize("mode", MODES)
def test_advance(full: psycopg.Connection[Any], mode: str) -> None:
    ids = running_ids(full)
    nodes = explain(
        full,
        mode,
        "ack_and_claim",
        {
            **CLAIM,
            "ids": ids,
            "claims": [1] * 100,
            "started": started(full, ids),
            "results": ["null"] * 100,
            "seconds": [0.1] * 100,
        },
    )
    found = kinds(nodes)
    indexes = {node["Index Name"] for node in nodes if "Index Name" in node}
    assert {"job_claim_idx", "job_pkey"} <= indexes
    assert "job_running_idx" not in indexes
    assert not {"Sort", "Incremental Sort", "Hash Join", "Merge Join", "Seq Scan on job"} & found
    # 100 found through the claim index, 100 updated, 100 acknowledged.
    assert rows_read(nodes, "job") == 300


@pytest.mark.parametrize("mode", MODES)
def test_a_claim_that_leaves_jobs_out(full: psycopg.Connection[Any], mode: str) -> None:
    """The plan of the ordinary claim; and so for the look at the job that would be the first."""
    refused = {"refused": "{" + ",".join(map(str, running_ids(full))) + "}"}
    for name, parameters, most in (("ack_and_claim:except", CLAIM | refused, 200), ("claim_head", LANES | refused, 1)):
        nodes = explain(full, mode, name, parameters)
        assert not {"Sort", "Incremental Sort", "Hash Join", "Merge Join", "Seq Scan on job"} & kinds(nodes)
        assert rows_read(nodes, "job") <= most


def buffers(nodes: list[dict[str, Any]]) -> int:
    """Return how many pages a statement has touched."""
    touched: int = nodes[0]["Shared Hit Blocks"] + nodes[0]["Shared Read Blocks"]
    return touched


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("database", ["empty_database", "loaded_database", "full_database"])
def test_a_claim_from_the_cursor(request: pytest.FixtureRequest, database: str, mode: str) -> None:
    """As many pages whatever lies behind the cursor and ahead of it: the index entry and the row of each job, twice."""
    with psycopg.connect(request.getfixturevalue(database)) as connection:
        # As a worker has it: by the statistics of an empty table, reading all of it is best.
        for name, value in HOT.settings().items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        connection.commit()
        row = connection.execute(
            "SELECT (extract(epoch FROM run_at) * 1000000)::bigint, id FROM jobq.job "
            "WHERE queue = 'default' AND priority = 5 AND state = 'ready' ORDER BY run_at, id LIMIT 1"
        ).fetchone() or (0, 0)
        places = len(PRIORITIES)
        since = {
            "since": "{" + ",".join([str(row[0])] * places) + "}",
            "since_ids": "{" + ",".join(["0"] * places) + "}",
        }
        nodes = explain(connection, mode, "ack_and_claim", CLAIM | since)
        due = explain(connection, mode, "next_due", LANES | since)
    assert not {"Sort", "Incremental Sort", "Hash Join", "Merge Join", "Seq Scan on job"} & kinds(nodes)
    assert {"job_claim_idx", "job_pkey"} <= {node["Index Name"] for node in nodes if "Index Name" in node}
    found = 0 if database == "empty_database" else 100
    assert rows_read(nodes, "job") == 2 * found
    # 30 lanes; for each job found, locked, updated and entered into three indexes.
    assert buffers(nodes) <= 30 * 5 + found * 30
    assert not {"Sort", "Incremental Sort", "Seq Scan on job"} & kinds(due)
    assert buffers(due) <= 30 * 6


@pytest.mark.parametrize("mode", MODES)
def test_lane_heads(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(full, mode, "lane_heads", {"queues": QUEUES * 10, "priorities": PRIORITIES})
    assert not {"Sort", "Incremental Sort", "Seq Scan on job"} & kinds(nodes)
    assert {node["Index Name"] for node in nodes if "job" in node.get("Index Name", "")} == {"job_claim_idx"}
    assert rows_read(nodes, "job") <= 30


@pytest.mark.parametrize("mode", MODES)
def test_settle(full: psycopg.Connection[Any], mode: str) -> None:
    ids = running_ids(full)
    columns = {"states": "ready", "delays": 1.0, "given_back": 0, "crashes": 0, "seconds": 0.1, "recorded": "error"}
    columns |= {"run_alone": False, "releases": 0, "waits": False}
    texts = {"error_types": "E", "messages": "m", "tracebacks": "t", "logs": "l"}
    nodes = explain(
        full,
        mode,
        "record_failures",
        {
            "worker": WORKER,
            "ids": ids,
            "claims": [1] * 100,
            "started": started(full, ids),
            "wake": True,
            "channel": "jobq",
            **{name: [value] * 100 for name, value in (columns | texts).items()},
        },
    )
    assert not {"Seq Scan on job", "Merge Join"} & kinds(nodes)
    # What was locked may be hashed, to be joined with what has ended; the table is read by its key only.
    scans = [node for node in nodes if node.get("Relation Name") == "job" and node["Node Type"].endswith("Scan")]
    assert {node.get("Index Name") for node in scans} == {"job_pkey"}
    # 100 locked, 100 updated; nothing more unless some are locked by others.
    assert rows_read(nodes, "job") == 200


@pytest.mark.parametrize("mode", MODES)
def test_locked_jobs(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(full, mode, "locked_jobs", {"ids": running_ids(full)})
    assert not {"Seq Scan on job", "Hash Join", "Merge Join"} & kinds(nodes)
    # 100 locked; 100 looked at, of which none is returned.
    assert rows_read(nodes, "job") <= 200


@pytest.mark.parametrize("mode", MODES)
def test_succeed(full: psycopg.Connection[Any], mode: str) -> None:
    """On the application's planner settings, whatever they are."""
    (job,) = running_ids(full)[:1]
    parameters = {
        "id": job,
        "claims": 1,
        "started": started(full, [job])[0],
        "worker": WORKER,
        "execution": f"{job}/1",
        "seconds": 0.1,
        "result": "null",
        "error": None,
    }
    full.rollback()
    full.execute("SELECT set_config('jobq.execution', %s, false)", (f"{job}/1",))
    full.commit()
    nodes = explain(full, mode, "ack_in_task_transaction", parameters)
    assert "Seq Scan on job" not in kinds(nodes)
    assert "job_pkey" in {node.get("Index Name") for node in nodes}
    assert rows_read(nodes, "job") == 1
    assert rows_read(nodes, "job_key") == 0
    # The same for an execution of another transaction: it reads nothing at all.
    assert rows_read(explain(full, mode, "ack_in_task_transaction", parameters | {"execution": "0/0"}), "job") == 0


@pytest.mark.parametrize("mode", MODES)
def test_progress(full: psycopg.Connection[Any], mode: str) -> None:
    ids = running_ids(full)
    said = {"ids": ids, "claims": [1] * 100, "started": started(full, ids), "done": [1] * 100, "totals": [None] * 100}
    nodes = explain(full, mode, "progress", {"worker": WORKER, **said})
    assert not {"Seq Scan on job", "Hash Join", "Merge Join"} & kinds(nodes)
    assert rows_read(nodes, "job") == 200


@pytest.mark.parametrize("mode", MODES)
def test_lanes(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(full, mode, "lanes", {"queue": "", "priority": -1, "most": 500})
    assert not {"Sort", "Incremental Sort", "Hash Join", "Merge Join", "Seq Scan on job"} & kinds(nodes)
    assert {node["Index Name"] for node in nodes if "job" in node.get("Index Name", "")} == {"job_claim_idx"}
    assert rows_read(nodes, "job") <= 31
    # From the second lane of the 30 on.
    nodes = explain(full, mode, "lanes", {"queue": "default", "priority": 0, "most": 10})
    assert rows_read(nodes, "job") == 10


@pytest.mark.parametrize("mode", MODES)
def test_queue_rules(empty_database: str, mode: str) -> None:
    with psycopg.connect(empty_database) as connection:
        nodes = explain(connection, mode, "queue_rules", {}, before=["SET LOCAL enable_seqscan = off"])
    assert {node["Relation Name"] for node in nodes if "Relation Name" in node} == {"queue", "group_ready"}
    assert not {"Sort", "Hash Join", "Merge Join", "Seq Scan on group_ready"} & kinds(nodes)


@pytest.mark.parametrize("mode", MODES)
def test_next_due(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(full, mode, "next_due", LANES)
    assert not {"Sort", "Seq Scan on job"} & kinds(nodes)
    assert {node["Index Name"] for node in nodes if "job" in node.get("Index Name", "")} == {"job_claim_idx"}
    assert rows_read(nodes, "job") <= 30


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bounded", [False, True])
def test_heads(full: psycopg.Connection[Any], mode: str, bounded: bool) -> None:
    since = round((time.time() - 1800) * 1_000_000) if bounded else 0
    nodes = explain(full, mode, "due_lane_heads", {**LANES, "since": "{" + ",".join([str(since)] * 30) + "}"})
    assert not {"Sort", "Incremental Sort", "Hash Join", "Merge Join", "Seq Scan on job"} & kinds(nodes)
    scans = [node for node in nodes if node.get("Relation Name") == "job"]
    assert {node["Index Name"] for node in scans} == {"job_claim_idx"}
    assert rows_read(nodes, "job") <= 30
    if bounded:
        # The 100,000 dead entries are below the bound: a few pages of the index and of the table for each lane.
        (scan,) = scans
        assert scan["Shared Hit Blocks"] + scan["Shared Read Blocks"] <= 30 * 8


# As the maintenance task has it: `MAINTENANCE`, and its own.
AS_EXPIRY: list[LiteralString] = ["SET LOCAL enable_seqscan = off", "SET LOCAL enable_sort = off"]


def fill_for_expiry(url: str, *, late: int, analysed: bool) -> None:
    """20,000 jobs of which so many are late, as many will be, and the others do not expire."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE jobq.job SET (autovacuum_enabled = off)")
        connection.execute("ANALYZE jobq.job")
        connection.execute(
            "INSERT INTO jobq.job (task, expires_at) SELECT 't', CASE WHEN n <= %(late)s THEN now() - n * interval '1 ms' "
            "WHEN n <= 2 * %(late)s THEN now() + n * interval '1 min' END FROM generate_series(1, 20000) AS n",
            {"late": late},
        )
        if analysed:
            connection.execute("ANALYZE jobq.job")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("since", ["-infinity", "yesterday"])
@pytest.mark.parametrize("analysed", [True, False])
def test_expire_jobs(database_url: str, mode: str, since: str, analysed: bool) -> None:
    """No batch sorts all that are late, whatever the statistics say."""
    fill_for_expiry(database_url, late=8_000, analysed=analysed)
    with psycopg.connect(database_url) as connection:
        found = explain(
            connection, mode, "expired_jobs", {"batch": 100, "since": since, "aside": [7_999]}, before=AS_EXPIRY
        )
        ids = [id for (id,) in connection.execute("SELECT id FROM jobq.job WHERE expires_at < now() LIMIT 100")]
        done = explain(connection, mode, "expire_jobs", {"ids": ids, "channel": "jobq"}, before=AS_EXPIRY)
    assert not {"Sort", "Incremental Sort", "Hash Join", "Merge Join", "Seq Scan on job"} & kinds([*found, *done])
    assert {node["Index Name"] for node in found if "Index Name" in node} == {"job_expires_idx"}
    assert {node["Index Name"] for node in done if "Index Name" in node} - {"job_key_pkey"} == {
        "job_pkey",
        "job_step_pkey",
    }
    # Found, one that is left out, and one that is to come.
    assert rows_read(found, "job") <= 102
    assert rows_read(done, "job") <= 100
    assert rows_read(done, "job_key") == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("analysed", [True, False])
def test_expire_jobs_when_there_are_none(database_url: str, mode: str, analysed: bool) -> None:
    fill_for_expiry(database_url, late=0, analysed=analysed)
    with psycopg.connect(database_url) as connection:
        nodes = explain(
            connection, mode, "expired_jobs", {"batch": 100, "since": "-infinity", "aside": []}, before=AS_EXPIRY
        )
    assert not {"Sort", "Seq Scan on job"} & kinds(nodes)
    assert rows_read(nodes, "job") == 0
    assert buffers(nodes) <= 10


@pytest.mark.parametrize("mode", MODES)
def test_own_jobs(full: psycopg.Connection[Any], mode: str) -> None:
    nodes = explain(full, mode, "jobs_of_worker", {"worker": WORKER})
    assert {node["Index Name"] for node in nodes if "Index Name" in node} == {"job_running_idx"}
    assert rows_read(nodes, "job") <= 500


@pytest.mark.parametrize("mode", MODES)
def test_heartbeat(full: psycopg.Connection[Any], mode: str) -> None:
    """With 500 jobs running, none to be cancelled, and 200 other workers."""
    full.execute(
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version) "
        "SELECT gen_random_uuid(), n, 1, 1, 'h', '0' FROM generate_series(1, 200) AS n"
    )
    full.execute(
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version) VALUES (%s, 1, 1, 1, 'h', '0') ON CONFLICT "
        "DO NOTHING",
        (WORKER,),
    )
    beat = {"id": WORKER, "running": 500, "state": "running", "tasks": ["t"], "signatures": ["s"], "rss": 1}
    beat |= {"locked": True, "pooled": False}
    nodes = explain(full, mode, "worker_heartbeat", {**beat, "problems": "[]"})
    # What a lock of another table could keep back is read by other statements.
    assert {node["Relation Name"] for node in nodes if "Relation Name" in node} == {"worker"}
    for name in ("heartbeat_reply", "heartbeat_cancels"):
        nodes = explain(full, mode, name, {"id": WORKER})
        assert {node["Index Name"] for node in nodes if node.get("Relation Name") == "job"} == {"job_running_idx"}
        assert rows_read(nodes, "job") <= 500
    full.rollback()


@pytest.mark.parametrize("mode", MODES)
def test_rescue(full: psycopg.Connection[Any], mode: str) -> None:
    full.execute(
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version) VALUES (%s, 1, 1, 1, 'h', '0') ON CONFLICT "
        "DO NOTHING",
        (WORKER,),
    )
    full.commit()
    nodes = explain(
        full, mode, "rescue", {"dead": WORKER, "beats": 0, "only": None, "max_losses": 10, "channel": "jobq"}
    )
    assert "Seq Scan on job" not in kinds(nodes)
    assert {node["Index Name"] for node in nodes if "Index Name" in node} <= {
        "job_running_idx",
        "job_pkey",
        "job_key_pkey",
        "job_step_pkey",
        "worker_pkey",
    }
    assert rows_read(nodes, "job_key") == 0
    assert rows_read(nodes, "job_step") == 0


# As if the worker of the 500 running jobs were long gone, without a row.
LOST: list[LiteralString] = [
    "DELETE FROM jobq.worker",
    "UPDATE jobq.job SET started_at = now() - interval '1 h' WHERE state = 'running'",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["orphans", "release_orphans"])
def test_orphans_are_found_among_the_running_jobs(full: psycopg.Connection[Any], mode: str, name: str) -> None:
    parameters = {"only": None, "channel": "jobq"} if name == "release_orphans" else {}
    nodes = explain(full, mode, name, parameters, before=LOST)
    assert "Seq Scan on job" not in kinds(nodes)
    assert "job_running_idx" in {node["Index Name"] for node in nodes if "Index Name" in node}
    # Each is read once to be found, and by its id to be put back.
    assert 500 <= rows_read(nodes, "job") <= 3 * 500


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["worker_leave", "worker_gone"])
def test_whether_a_worker_has_jobs_left_is_told_by_the_index(
    full: psycopg.Connection[Any], mode: str, name: str
) -> None:
    register: list[LiteralString] = [
        "DELETE FROM jobq.worker",
        "INSERT INTO jobq.worker (id, lock_key, pid, slots, host, version, beats) "
        "VALUES ('00000000-0000-0000-0000-000000000001', 1, 1, 1, 'h', '0', 7)",
    ]
    parameters = {"id": WORKER} if name == "worker_leave" else {"dead": WORKER, "beats": 7}
    nodes = explain(full, mode, name, parameters, before=register)
    assert "Seq Scan on job" not in kinds(nodes)
    assert "job_running_idx" in {node["Index Name"] for node in nodes if "Index Name" in node}
    assert rows_read(nodes, "job") <= 500


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("queues", [None, ["mail", "reports"]])
def test_drained(full: psycopg.Connection[Any], mode: str, queues: list[str] | None) -> None:
    """When it is so, which takes the longest to find out: every lane has only future jobs, or is paused."""
    idle: list[LiteralString] = [
        "DELETE FROM jobq.job WHERE state = 'running'",
        "INSERT INTO jobq.queue (name, paused_at) VALUES ('default', now())",
    ]
    nodes = explain(full, mode, "is_drained", {"queues": queues, "leaving": []}, before=idle)
    assert not {"Sort", "Incremental Sort", "Merge Join", "Seq Scan on job"} & kinds(nodes)
    scans = [node for node in nodes if node.get("Relation Name") == "job"]
    # The heads of groups with a rate are looked up where a turn is for later.
    heads = {"job_waiting_idx", "job_waiting_due_idx"}
    assert {node["Index Name"] for node in scans} - heads == {"job_claim_idx", "job_running_idx"}
    # Every lane was found, one row each, and where nothing is due nothing was read.
    assert sum(node["Actual Loops"] for node in scans) >= 30 + 20
    assert rows_read(nodes, "job") <= 30


def test_a_claim_of_nothing_reads_nothing(full: psycopg.Connection[Any]) -> None:
    nodes = explain(
        full,
        "force_generic_plan",
        "ack_and_claim",
        {
            **LANES,
            "queues": texts_array(["empty"] * 30),
            "ids": [],
            "claims": [],
            "started": [],
            "results": [],
            "seconds": [],
            "worker": uuid4(),
        }
        | {"want": 100},
    )
    assert rows_read(nodes, "job") == 0
