"""Rates and limits of groups: what Python says of them is what claims do."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from jobq.errors import InvalidOption
from jobq.limits import MAX_PERIOD, Groups, Rate
from tests.support.rows import add_job

Conn = psycopg.Connection[Any]
NOW = datetime(2030, 1, 1, tzinfo=UTC)
RATES = st.builds(
    lambda jobs, seconds, burst: (jobs, seconds, burst),
    st.integers(1, 10_000),
    st.one_of(st.integers(1, 86_400), st.floats(0.001, 86_400).map(lambda seconds: round(seconds, 3))),
    st.integers(1, 1_000),
)


def claim(db: Conn, want: int = 100) -> int:
    rows = db.execute("SELECT id FROM jobq.claim_limited(%s, 'mail', %s)", (uuid.uuid4(), want)).fetchall()
    return sum(row[0] is not None for row in rows)


@pytest.mark.parametrize(
    ("rule", "own"),
    [(rule, own) for rule in ("ordered", "limited:1", "limited:3", "fair", "fair:2") for own in (None, 1, 4)],
)
def test_as_many_of_a_group_run_as_the_rule_says(db: Conn, rule: str, own: int | None) -> None:
    groups = Groups.parse(rule)
    db.execute(
        "INSERT INTO jobq.queue (name, group_mode, group_limit) VALUES ('mail', %s, %s)", (groups.mode, groups.limit)
    )
    if own is not None:
        db.execute("INSERT INTO jobq.rate_state (queue, group_key, max_running) VALUES ('mail', 'g', %s)", (own,))
    for _ in range(6):
        add_job(db, queue="mail", group_key="g")
    limit = groups.limit_of(own)
    assert sum(claim(db) for _ in range(3)) == (6 if limit is None else limit)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(given=RATES, ahead=st.floats(0, 1), left=st.floats(-1, 1), count=st.integers(1, 1_000))
def test_both_functions_of_the_rate_agree(
    db: Conn, given: tuple[int, float, int], ahead: float, left: float, count: int
) -> None:
    """`admits` lets `count` start exactly from the time on that `admits_from` says; never more than a burst."""
    try:
        rate = Rate(*given)
    except InvalidOption:
        assume(False)
    # Up to when all is paid for: between now, and a burst ahead.
    paid = NOW + timedelta(seconds=ahead * rate.burst * rate.share)
    assume(paid > NOW and rate.share >= 1e-4)
    rule = (rate.jobs, rate.seconds, rate.burst)
    (first,) = db.execute("SELECT jobq.admits_from(%s, %s, %s, %s)", (*rule, paid)).fetchone() or (None,)
    margin = min(0.05, (rate.burst - 1) * rate.share / 2)
    assert first is not None
    assert abs((first - paid).total_seconds() - (margin - (rate.burst - 1) * rate.share)) < 1e-5 * max(1, rate.burst)
    count = min(count, rate.burst)
    # A hundredth of a share to either side of the time from which `count` may start.
    for early in (True, False):
        moment = first + timedelta(seconds=(count - 1) * rate.share + (-0.01 if early else 0.01) * rate.share)
        if moment >= paid or abs(timedelta(seconds=0.01 * rate.share)) < timedelta(microseconds=2):
            continue
        (found,) = db.execute("SELECT jobq.admits(%s, %s, %s, %s, %s)", (*rule, paid, moment)).fetchone() or (None,)
        assert found == (count - 1 if early else count), (rule, ahead, moment)
    (full,) = db.execute("SELECT jobq.admits(%s, %s, %s, %s, %s)", (*rule, paid, paid)).fetchone() or (None,)
    assert full == rate.burst


@pytest.mark.parametrize("text", ["7/s", "100/min", "3/10s", "1000/h", "9/7s"])
@pytest.mark.parametrize("burst", [1, 5])
def test_a_claim_pays_its_share(db: Conn, text: str, burst: int) -> None:
    """Of the queue's rate and of a group's: what Rate.share says, rounded up to whole microseconds."""
    rate = Rate.parse(text, burst=burst)
    columns = {"jobs": rate.jobs, "seconds": rate.seconds, "burst": rate.burst}
    db.execute(
        "INSERT INTO jobq.queue (name, group_mode, rate_jobs, rate_seconds, rate_burst, group_rate_jobs, group_rate_seconds, "
        "group_rate_burst) VALUES ('mail', 'fair', %(jobs)s, %(seconds)s, %(burst)s, %(jobs)s, %(seconds)s, %(burst)s)",
        columns,
    )
    for _ in range(8):
        add_job(db, queue="mail", group_key="g")
    count = claim(db)
    assert count == rate.burst
    (started,) = db.execute("SELECT DISTINCT started_at FROM jobq.job WHERE state = 'running'").fetchall()
    paid = dict(db.execute("SELECT group_key, paid_until FROM jobq.rate_state WHERE queue = 'mail'").fetchall())
    share = timedelta(microseconds=math.ceil(count * (rate.seconds / rate.jobs) * 1e6))
    assert abs(share - timedelta(seconds=count * rate.share)) <= timedelta(microseconds=1)
    assert paid == {"": started[0] + share, "g": started[0] + share}


def test_the_longest_period_can_be_reckoned(db: Conn) -> None:
    rate = Rate(1, MAX_PERIOD, 1)
    found = db.execute("SELECT jobq.admits_from(%s, %s, %s, %s)", (rate.jobs, rate.seconds, rate.burst, NOW)).fetchone()
    assert found == (NOW,)
