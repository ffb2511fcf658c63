"""The search's statements as they are sent, with 100,000 jobs live and in history: by an index, no further than they say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from jobq import queries
from jobq.errors import InvalidOption
from jobq.filters import JobFilter
from jobq.queries import finished, search
from tests.plans.filled import explain, explain_generic, large_seq_scans
from tests.plans.test_page_plans import full
from tests.support.checks import some

Conn = psycopg.Connection[Any]
WORKER = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
HISTORY, FINISHED = "history", "finished"

__all__ = ["full"]


def sent(conn: Conn, text: str, **options: Any) -> list[tuple[bytes, dict[str, Any]]]:
    """Return the statements of a search with their parameters."""
    seen: list[tuple[bytes, dict[str, Any]]] = []

    class Spy(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **more: Any) -> Any:
            seen.append((query.as_bytes(self) if isinstance(query, sql.Composable) else query, params))
            return super().execute(query, params, **more)

    conn.cursor_factory = Spy
    try:
        queries.search_jobs(conn, "jobq", JobFilter.parse(text), **options)
    finally:
        conn.cursor_factory = psycopg.Cursor
    return seen


def index(node: dict[str, Any]) -> str:
    name: str = node["Index Name"]
    if name.startswith("job_history_"):
        return FINISHED if "_finished_at_id_idx" in name else HISTORY if name.endswith("_id_idx") else name
    return name


def read(plan: list[dict[str, Any]]) -> int:
    """Rows read from tables and indexes, those that a filter threw away included."""
    return sum(
        round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
        for node in plan
        if node["Node Type"].endswith("Scan") and "Relation Name" in node
    )


# Among the finished jobs, some seconds ago.
LATER = queries.Cursor(10**9, datetime.now(UTC) - timedelta(seconds=20))
CASES: list[tuple[str, dict[str, Any], set[str], int]] = [
    # the filter, options, the indexes, most rows that one statement may read
    ("", {}, {"job_pkey", HISTORY}, 110),
    ("", {"before_id": 150_000}, {"job_pkey", HISTORY}, 110),
    ("", {"before_id": 50_000}, {"job_pkey", HISTORY}, 110),
    ("state:failed", {"order": "id"}, {HISTORY}, 60),
    ("state:failed,cancelled", {"before_id": 150_000}, {HISTORY}, 60),
    ("state:expired", {"order": "id"}, {HISTORY}, 0),
    ("state:failed", {}, {FINISHED}, 60),
    ("state:failed,cancelled", {"before": LATER}, {FINISHED}, 60),
    ("state:cancelled,failed,expired", {"before": LATER}, {FINISHED}, 60),
    # Without an index while they are few: see below.
    ("state:expired", {}, {FINISHED}, 0),
    ("state:ready,scheduled,running,parked,waiting", {}, {"job_pkey"}, 60),
    ("state:running", {}, {"job_pkey", "job_running_idx"}, 200),
    (f"state:running worker:{WORKER}", {}, {"job_pkey", "job_running_idx"}, 200),
    ("state:ready queue:queue3", {}, {"job_pkey", "job_claim_idx"}, 5_100),
    ("state:scheduled queue:queue3 args.n:-1", {}, {"job_pkey", "job_claim_idx"}, 5_100),
    ("state:parked", {}, {"job_pkey"}, 25_100),
    ("state:parked queue:nosuch", {}, {"job_pkey"}, 25_100),
    ("state:ready task:task3", {}, {"job_pkey"}, 25_100),
    ("queue:nosuch", {}, {"job_pkey", HISTORY}, 25_100),
    ("nosuch", {"before_id": 150_000}, {"job_pkey", HISTORY}, 25_100),
    ("args.n:-1", {}, {"job_pkey", HISTORY}, 25_100),
    ("tag:eu key:a* attempt:>3", {}, {"job_pkey", HISTORY}, 25_100),
    ("error:nothing", {"order": "id"}, {HISTORY}, 25_100),
    ("error:nothing state:failed", {}, {FINISHED}, 25_100),
    ("error:nothing state:failed", {"before": LATER}, {FINISHED}, 25_100),
    ("failure:1f0c9ab23d45", {"order": "id"}, {HISTORY}, 25_100),
    ("failure:1f0c9ab23d45", {}, {FINISHED}, 25_100),
    (f"worker:{WORKER}", {}, {"job_pkey", HISTORY, "job_running_idx"}, 25_100),
    ("age:>1h queue:nosuch", {}, {"job_pkey", HISTORY, FINISHED}, 25_100),
    ("age:<1h state:failed task:nosuch", {"order": "id"}, {HISTORY}, 25_100),
    ("age:<1h state:failed task:nosuch", {}, {FINISHED}, 25_100),
    ("7 150000 99999999", {}, {"job_pkey", HISTORY}, 10),
]  # fmt: skip


@pytest.mark.parametrize("generic", [False, True], ids=["custom", "generic"])
@pytest.mark.parametrize(("text", "options", "indexes", "rows"), CASES)
def test_a_search_goes_by_an_index_and_no_further_than_it_says(
    full: Conn,  # the fixture
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    options: dict[str, Any],
    indexes: set[str],
    rows: int,
    generic: bool,
) -> None:
    monkeypatch.setattr(search, "_PATIENCE", 60.0)
    for query, params in some(sent(full, text, **options)):
        with full.transaction(force_rollback=True):
            plan = (explain_generic if generic else explain)(full, query, params)
        full.execute("DEALLOCATE ALL")
        assert large_seq_scans(full, plan) == []
        assert {index(node) for node in plan if "Index Name" in node} <= indexes
        assert read(plan) <= rows
        for node in some(plan):
            if node["Node Type"] in ("Sort", "Incremental Sort"):
                # A window of the finished that is most of a partition is read by its index and sorted.
                most = rows if indexes == {FINISHED} else min(rows, 5_100)
                assert sum(child["Actual Rows"] for child in node["Plans"]) <= 1_100 + most


def test_succeeded_jobs_are_sorted_while_they_are_few(full: Conn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queries.search_jobs(full, "jobq", JobFilter.parse("state:succeeded")).order == "finished"
    monkeypatch.setattr(finished, "_MOST_PAGES", 100)
    page = queries.search_jobs(full, "jobq", JobFilter.parse("state:succeeded"), limit=10)
    assert (page.order, len(page.rows)) == ("id", 10)
    assert queries.search_jobs(full, "jobq", JobFilter.parse("state:failed,cancelled")).order == "finished"
    with pytest.raises(InvalidOption, match="too many jobs have succeeded"):
        queries.search_jobs(full, "jobq", JobFilter.parse("state:succeeded,failed"), order="finished")
    for query, params in some(sent(full, "error:nothing")):
        assert large_seq_scans(full, explain(full, query, params)) == []
