"""Limits, rates and rules for groups: from text to a value and back, and every value that says nothing."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobq.errors import InvalidOption
from jobq.limits import MAX_NUMBER, MAX_PERIOD, MAX_STARTS, Groups, QueueSettings, Rate, settings_of
from jobq.operations.queue_settings import UNSET, QueueSettingsPatch


@pytest.mark.parametrize(
    ("text", "rate", "again"),
    [
        ("50/s", Rate(50), "50/s"),
        ("5/10s", Rate(5, 10), "5/10s"),
        ("100/min", Rate(100, 60), "100/min"),
        ("100/60s", Rate(100, 60), "100/min"),
        ("100/m", Rate(100, 60), "100/min"),
        ("1000/h", Rate(1000, 3600), "1000/h"),
        ("3/day", Rate(3, 86400), "3/day"),
        ("3/2day", Rate(3, 172800), "3/2day"),
        (" 7 / 0.5 S ", Rate(7, 0.5), "7/0.5s"),
        ("1/366day", Rate(1, MAX_PERIOD), "1/366day"),
    ],
)
def test_a_rate_is_read_and_said_again(text: str, rate: Rate, again: str) -> None:
    assert Rate.parse(text) == rate
    assert str(rate) == again
    assert Rate.parse(again) == rate


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0/s", r"rate='0/s'.*expected a whole number from 1.*pause the queue"),
        ("-1/s", r"rate='-1/s'.*such as 50/s"),
        ("50", "such as 50/s"),
        ("50/", "such as 50/s"),
        ("50/fortnight", "such as 50/s"),
        ("1.5/s", "such as 50/s"),
        ("nan/s", "such as 50/s"),
        ("5/nans", "such as 50/s"),
        ("\u0665/s", "such as 50/s"),
        ("", "such as 50/s"),
        ("5/0s", "above 0 and at most 366 days"),
        ("5/367day", "above 0 and at most 366 days"),
        (f"{MAX_NUMBER + 1}/day", f"from 1 to {MAX_NUMBER}"),
        ("9" * 400 + "/s", "such as 50/s"),
        (f"{MAX_STARTS + 1}/s", "at most 10,000 starts a second"),
    ],
)
def test_a_rate_that_says_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        Rate.parse(text)


@pytest.mark.parametrize(
    "values",
    [
        (0,), (-1,), (True,), (1.0,), ("5",), (None,), (MAX_NUMBER + 1,),
        (1, 0), (1, -1), (1, math.nan), (1, math.inf), (1, True), (1, "s"), (1, MAX_PERIOD + 1), (1, 1e-320),
        (1, 1, 0), (1, 1, -1), (1, 1, True), (1, 1, 1.5), (1, 1, MAX_NUMBER + 1), (1, MAX_PERIOD, 2), (1, 1, MAX_NUMBER),
    ],
)  # fmt: skip
def test_a_rate_that_cannot_be_kept_is_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidOption):
        Rate(*values)


@example(407, int(MAX_PERIOD), 407)
@given(
    st.integers(1, MAX_NUMBER),
    st.one_of(st.integers(1, int(MAX_PERIOD)), st.floats(1e-6, MAX_PERIOD).map(lambda seconds: round(seconds, 6))),
    st.integers(1, 1000),
)
def test_every_rate_says_itself_again(jobs: int, seconds: float, burst: int) -> None:
    try:
        rate = Rate(jobs, seconds, burst)
    except InvalidOption:
        assert not (seconds > 0 and jobs / seconds <= MAX_STARTS and burst * seconds <= MAX_PERIOD * jobs)
        return
    assert Rate.parse(str(rate), burst=burst) == rate
    # What claim_limited reckons with: whole microseconds, at most a two-hundredth beside the truth, and a time that exists.
    assert round(rate.share * 1e6) >= 100
    assert rate.burst * rate.share <= MAX_PERIOD * (1 + 1e-9)


@given(st.text(max_size=30))
def test_no_text_is_more_than_refused(text: str) -> None:
    for parse in (Rate.parse, Groups.parse):
        with suppress(InvalidOption):
            value = parse(text)
            assert parse(str(value)) == value


@pytest.mark.parametrize(
    ("text", "groups", "again"),
    [
        ("ordered", Groups("ordered"), "ordered"),
        ("ordered:hold", Groups("ordered"), "ordered"),
        ("Ordered:Pass", Groups("ordered", retry="pass"), "ordered:pass"),
        ("limited:3", Groups("limited", 3), "limited:3"),
        ("limit=3", Groups("limited", 3), "limited:3"),
        ("fair", Groups("fair"), "fair"),
        (" fair:5 ", Groups("fair", 5), "fair:5"),
    ],
)
def test_a_rule_for_groups_is_read_and_said_again(text: str, groups: Groups, again: str) -> None:
    assert Groups.parse(text) == groups
    assert str(groups) == again


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fifo", "groups='fifo'.*expected ordered, ordered:pass, limited:N, fair or fair:N"),
        ("ordered:3", "one job at a time"),
        ("limited", "as in limited:3"),
        ("limited:0", "from 1"),
        ("limited:-1", "expected ordered"),
        ("limited:1.5", "expected ordered"),
        ("limited:true", "expected ordered"),
        (f"fair:{MAX_NUMBER + 1}", f"from 1 to {MAX_NUMBER}"),
        ("fair:pass", "for ordered groups only"),
        ("limited:hold", "as in limited:3"),
        ("fair:\u0663", "expected ordered"),
        ("", "expected ordered"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        Groups.parse(text)


@pytest.mark.parametrize("limit", [0, -1, True, 1.0, "3", MAX_NUMBER + 1, math.nan])
def test_a_limit_is_a_whole_number(limit: Any) -> None:
    with pytest.raises(InvalidOption, match=r"^limit="):
        QueueSettings(limit=limit)
    with pytest.raises(InvalidOption, match=r"^group limit="):
        Groups("fair", limit)
    with pytest.raises(InvalidOption, match=r"^limit="):
        QueueSettingsPatch(limit=limit).over(QueueSettings())


def test_settings_in_words() -> None:
    assert QueueSettings().describe() == "No limit, no rate and no rule for groups."
    assert QueueSettings(limit=1, rate=Rate(1, 10)).describe() == (
        "At most 1 job runs at a time; at most 1 start in 10 seconds."
    )
    full = QueueSettings(
        limit=20, rate=Rate(50, burst=10), groups=Groups("fair", 5), group_rate=Rate(1000, 3600, burst=2)
    )
    assert full.describe() == (
        "At most 20 jobs run at a time; at most 50 starts a second, up to 10 of them at once; the groups take turns, at most "
        "5 of each at a time; of each group at most 1,000 starts an hour, up to 2 of them at once."
    )
    assert full.fields() == {
        "limit": 20, "rate": "50/s", "burst": 10, "groups": "fair:5", "group_rate": "1000/h", "group_burst": 2,
    }  # fmt: skip
    held, passed = Groups("ordered").describe(), Groups("ordered", retry="pass").describe()
    assert held == "each group in order of enqueue, one at a time (a job that waits for its retry holds its group back)"
    assert passed == "each group in order of enqueue, one at a time (the others pass a job that waits for its retry)"


def test_rows_that_were_written_past_jobq_are_shown() -> None:
    row = dict.fromkeys((
        "max_running", "rate_jobs", "rate_seconds", "rate_burst", "group_mode", "group_limit", "group_retry",
        "group_rate_jobs", "group_rate_seconds", "group_rate_burst", "paused_at", "changed_at",
    ))  # fmt: skip
    assert settings_of(row) == QueueSettings()
    strange = {"rate_jobs": 10**9, "rate_seconds": math.inf, "rate_burst": 10**9, "group_mode": "limited"}
    assert settings_of(row | strange).describe()


NOW = QueueSettings(limit=3, rate=Rate(50, burst=10), groups=Groups("fair"), group_rate=Rate(5))


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, NOW),
        ({"limit": None}, QueueSettings(rate=NOW.rate, groups=NOW.groups, group_rate=NOW.group_rate)),
        ({"rate": "7/s"}, QueueSettings(limit=3, rate=Rate(7, burst=10), groups=NOW.groups, group_rate=NOW.group_rate)),
        ({"rate": Rate(7)}, QueueSettings(limit=3, rate=Rate(7), groups=NOW.groups, group_rate=NOW.group_rate)),
        ({"burst": 2}, QueueSettings(limit=3, rate=Rate(50, burst=2), groups=NOW.groups, group_rate=NOW.group_rate)),
        ({"groups": None}, QueueSettings(limit=3, rate=NOW.rate)),
        ({"groups": "ordered", "group_rate": None}, QueueSettings(limit=3, rate=NOW.rate, groups=Groups("ordered"))),
    ],
)  # fmt: skip
def test_what_is_given_is_laid_over_what_there_is(given: dict[str, Any], after: QueueSettings) -> None:
    assert QueueSettingsPatch(**given).over(NOW) == after


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"burst": 5}, "burst=5: a burst needs a rate"),
        ({"rate": None, "burst": 5}, "burst=5: a burst needs a rate"),
        ({"rate": "5/s", "burst": 0}, "^burst=0"),
        ({"rate": "5/s", "burst": None}, "^burst=None"),
        ({"rate": Rate(5), "burst": 3}, "burst=3: the rate has its own burst, 1"),
        ({"rate": 5}, "rate=5: expected text"),
        ({"groups": 5}, "groups=5: expected text"),
        ({"group_rate": "5/s"}, "group_rate='5/s': the queue has no rule for its groups"),
        ({"group_rate": "0/s", "groups": "fair"}, "group_rate='0/s'"),
        ({"groups": "fair", "group_burst": 2}, "group_burst=2: a burst needs a group_rate"),
    ],
)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        QueueSettingsPatch(**given).over(QueueSettings())
    assert repr(UNSET) == "UNSET"
