"""Series, sparklines, groups of failures, one queue: what they say of rows put straight into the tables."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from jobq import queries
from jobq._core import histograms
from jobq._core.fingerprint import fingerprint
from jobq.errors import InvalidOption
from tests.support.rows import add_finished, add_job, add_worker

Conn = psycopg.Connection[Any]


def put(
    db: Conn,
    span: int,
    ago: int,
    *,
    queue: str = "",
    ready: int | None = None,
    waits: dict[int, int] | None = None,
    **counts: int,
) -> None:
    """A rollup of `ago` spans ago (1: the last that is over)."""
    histogram = [(waits or {}).get(n, 0) for n in range(histograms.BUCKETS)]
    counts = dict.fromkeys(("succeeded", "failed", "cancelled", "expired"), 0) | counts
    db.execute(
        "INSERT INTO jobq.rollup_queue (span, at, queue, succeeded, failed, cancelled, expired, ready, waits, runs)"
        " VALUES (%(span)s, date_bin(%(span)s * interval '1 s', now(), 'epoch') - %(ago)s * %(span)s"
        " * interval '1 s', %(queue)s,"
        " %(succeeded)s, %(failed)s, %(cancelled)s, %(expired)s, %(ready)s, %(histogram)s, %(histogram)s)",
        {"span": span, "ago": ago, "queue": queue, "ready": ready, "histogram": histogram, **counts},
    )


def test_a_series_of_nothing(conn: Conn) -> None:
    for hours, points in ((1, 60), (24, 144), (168, 168)):
        found = queries.series(conn, "jobq", hours=hours)
        assert len(found.at) == points
        assert found.at == sorted(found.at)
        assert {found.at[n + 1] - found.at[n] for n in range(points - 1)} == {found.span}
        for name in ("succeeded", "failed", "cancelled", "expired", "ready", "oldest_ready", "wait_p50", "run_p99"):
            # The last hour can be read from history itself, where no worker keeps rollups.
            known = hours == 1 and name in ("succeeded", "failed", "cancelled", "expired")
            assert getattr(found, name) == [0 if known else None] * points
    assert queries.sparklines(conn, "jobq") == {}


def test_a_series(conn: Conn) -> None:
    put(conn, 60, 1, succeeded=9, failed=1, ready=5, waits={3: 10})
    put(conn, 60, 1, queue="mail", succeeded=4, ready=3, waits={2: 3, 27: 1})
    put(conn, 60, 3)
    every = queries.series(conn, "jobq")
    assert every.succeeded[-4:] == [0, None, 9, 0]
    assert (every.failed[-2], every.ready[-2]) == (1, 5)
    assert 0.004 < (every.wait_p50[-2] or 0) < 0.008
    assert every.wait_p50[-4] is None
    mail = queries.series(conn, "jobq", queue="mail")
    assert mail.succeeded[-4:] == [0, None, 4, 0]
    assert mail.wait_p99[-2] == histograms.BOUNDS[-1]
    # A queue that had nothing then: nothing finished, nothing was ready; not unknown.
    other = queries.series(conn, "jobq", queue="pdf")
    assert (other.succeeded[-2], other.succeeded[-3]) == (0, None)
    assert other.ready[-2] == 0
    conn.execute(
        "INSERT INTO jobq.rollup_task (span, at, task, failed)"
        " SELECT span, at, 'mail.send', 7 FROM jobq.rollup_queue WHERE queue = 'mail'"
    )
    task = queries.series(conn, "jobq", task="mail.send")
    assert (task.failed[-2], task.succeeded[-2], task.failed[-3]) == (7, 0, None)
    assert task.ready == [None] * 60


def test_the_minutes_that_are_not_counted_yet_come_from_history(conn: Conn) -> None:
    put(conn, 60, 2, succeeded=9)
    add_finished(conn, "succeeded", queue="mail")
    add_finished(conn, "failed", queue="pdf")
    every = queries.series(conn, "jobq")
    # The running minute, or the one before it where a minute has begun meanwhile.
    assert [sum(number or 0 for number in counts[-3:]) for counts in (every.succeeded, every.failed)] in (
        [10, 1],
        [1, 1],
    )
    assert every.ready[-1] is every.run_p50[-1] is None
    mail = queries.series(conn, "jobq", queue="mail")
    assert [sum(number or 0 for number in counts[-2:]) for counts in (mail.succeeded, mail.failed)] == [1, 0]


def test_the_running_span_of_the_longer_series_is_there(conn: Conn) -> None:
    put(conn, 600, 0, succeeded=5)
    put(conn, 3600, 0, succeeded=6)
    assert queries.series(conn, "jobq", hours=24).succeeded[-1] == 5
    assert queries.series(conn, "jobq", hours=168).succeeded[-1] == 6


@pytest.mark.parametrize("options", [{"hours": 2}, {"hours": 0}, {"queue": "a", "task": "b"}])
def test_a_series_that_nobody_keeps(conn: Conn, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=r"expected (one of|only one)"):
        queries.series(conn, "jobq", **options)


def test_sparklines(conn: Conn) -> None:
    put(conn, 60, 1, queue="mail", succeeded=2, failed=1)
    put(conn, 60, 2, queue="mail", cancelled=4)
    put(conn, 60, 59, queue="mail", expired=1)
    put(conn, 60, 61, queue="mail", succeeded=100)
    put(conn, 60, 1, queue="pdf")
    lines = queries.sparklines(conn, "jobq")
    assert set(lines) == {"mail"}
    assert lines["mail"] == [1] + [0] * 28 + [7]


def test_failures_are_grouped(conn: Conn) -> None:
    same = [
        add_finished(
            conn, "failed", task="mail.send", queue=f"q{n % 2}", error=f"timed out after {n} s\nmore", ago=n * 1800
        )
        for n in range(5)
    ]
    add_finished(conn, "failed", task="mail.send", error="refused")
    add_finished(conn, "failed", task="pdf.render", error="timed out after 9 s")
    add_finished(conn, "failed", task="pdf.render", error=None, ago=30 * 3600)
    add_finished(conn, "cancelled", task="pdf.render", error="timed out after 9 s")
    found = queries.failures(conn, "jobq")
    assert (found.searched, found.complete, len(found.groups)) == (8, True, 4)
    top = found.groups[0]
    assert (top.task, top.error, top.count) == ("mail.send", "timed out after <n> s", 5)
    assert top.fingerprint == fingerprint("mail.send", "timed out after 7 s")
    assert (top.last_id, top.sample, top.queues) == (same[0], "timed out after 0 s\nmore", ["q0", "q1"])
    assert 7190 < (top.last_at - top.first_at).total_seconds() < 7210
    assert (len(top.trend), sum(top.trend), sum(top.trend[-3:])) == (24, 5, 5)
    (silent,) = [group for group in found.groups if group.error == ""]
    assert (silent.count, sum(silent.trend)) == (1, 0)

    few = queries.failures(conn, "jobq", reach=2)
    assert (few.searched, few.complete) == (2, False)

    one = queries.failure(conn, "jobq", top.fingerprint, limit=3)
    assert one is not None
    assert one.group == top
    assert [job.id for job in one.jobs] == same[:3]
    assert one.jobs[0].error == "timed out after 0 s\nmore"
    assert queries.failure(conn, "jobq", "0" * 12) is None
    with pytest.raises(InvalidOption, match="12 hexadecimal digits"):
        queries.failure(conn, "jobq", "'; --")
    with pytest.raises(InvalidOption, match="from 1 to 100000"):
        queries.failures(conn, "jobq", reach=0)


def test_one_queue(conn: Conn) -> None:
    assert queries.queue(conn, "jobq", "nosuch").known is False
    for n in range(5):
        add_job(conn, queue="mail", task="mail.send" if n else "mail.sort", run_in=-60 * n - 1, priority=n)
    add_job(conn, queue="mail", run_in=100)
    add_job(conn, queue="mail", state="running")
    add_finished(conn, "failed", queue="mail")
    add_worker(conn, queues=["mail"], host="a")
    add_worker(conn, queues=["pdf"], host="b")
    add_worker(conn, host="c")
    put(conn, 60, 1)
    put(conn, 60, 1, queue="mail", succeeded=3, failed=1, waits={3: 4})
    found = queries.queue(conn, "jobq", "mail")
    assert found.known
    assert (found.info.ready, found.info.scheduled, found.info.running, found.info.failed) == (5, 1, 1, 1)
    assert 240 < (found.info.oldest_ready_seconds or 0) < 300
    assert [(task.task, task.number) for task in found.tasks] == [("mail.send", 4), ("mail.sort", 1)]
    assert (found.looked_at, found.complete) == (5, True)
    assert [worker.host for worker in found.workers] == ["a", "c"]
    assert (found.finished_last_hour, found.failed_last_hour) == (4, 1)
    assert 0.004 <= (found.waits.p50 or 0) <= 0.008


def test_percentiles_lie_within_their_bucket() -> None:
    assert histograms.percentile([0] * histograms.BUCKETS, 0.5) is None
    assert histograms.percentile([], 0.5) is None
    for n, bound in enumerate(histograms.BOUNDS):
        counts = [0] * histograms.BUCKETS
        counts[n] = 7
        for share in (0.01, 0.5, 0.99, 1.0):
            found = histograms.percentile(counts, share)
            assert found is not None
            assert (histograms.BOUNDS[n - 1] if n else 0) <= found <= bound
    assert histograms.percentile([0] * (histograms.BUCKETS - 1) + [1], 0.5) == histograms.BOUNDS[-1]
    assert histograms.percentile([50, 50], 0.5) == pytest.approx(0.001)
    assert histograms.total([[1, 2], [], [1] * histograms.BUCKETS])[:3] == [2, 3, 1]
