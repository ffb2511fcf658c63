"""When schedules tick. Each daylight saving rule is held against the zone's clock, minute by minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from jobq.cron import EPOCH, Cron, Every, NoNextRun, When, following, latest, when
from jobq.errors import InvalidOption

MINUTE = timedelta(minutes=1)

# A day before each change, and what changes: by an hour at 02:00, at 02:00, and by half an hour at 02:00.
CHANGES = {
    ("Europe/Berlin", "forward"): datetime(2026, 3, 28, tzinfo=UTC),
    ("Europe/Berlin", "back"): datetime(2026, 10, 24, tzinfo=UTC),
    ("America/New_York", "forward"): datetime(2026, 3, 7, tzinfo=UTC),
    ("America/New_York", "back"): datetime(2026, 10, 31, tzinfo=UTC),
    ("Australia/Lord_Howe", "forward"): datetime(2026, 10, 3, tzinfo=UTC),
    ("Australia/Lord_Howe", "back"): datetime(2026, 4, 4, tzinfo=UTC),
}
SAMOA = datetime(2011, 12, 28, tzinfo=UTC)  # leaves out 30 December altogether


def local(expression: str, zone: str, after: datetime, number: int) -> list[str]:
    rule = Cron(expression, zone)
    return [tick.astimezone(rule.zone).strftime("%d %H:%M%z") for tick in following(rule, after, number)]


def ticks(rule: When, after: datetime, until: datetime) -> list[datetime]:
    found = []
    tick = rule.next(after)
    while tick <= until:
        found.append(tick)
        tick = rule.next(tick)
    return found


def shown(rule: Cron, moment: datetime) -> bool:
    """Whether the zone's clock shows at `moment` a time that fits: what recurring times mean."""
    wall = moment.astimezone(rule.zone)
    fields = CronSim(rule.expression, datetime(2000, 1, 1))
    return (
        wall.minute in fields.minutes
        and wall.hour in fields.hours
        and wall.month in fields.months
        and fields.match_day(wall.date())
    )


def first_shown(rule: Cron, after: datetime, until: datetime) -> list[datetime]:
    """The moments for fixed times, the slow way: for each minute of a calendar, whether it fits, and where it went."""
    fields = CronSim(rule.expression, datetime(2000, 1, 1))
    first: dict[datetime, datetime] = {}
    moment = after - timedelta(days=2)
    while moment <= until + timedelta(days=2):
        first.setdefault(moment.astimezone(rule.zone).replace(tzinfo=None), moment)
        moment += MINUTE
    walls = sorted(first)
    found = set()
    wall = walls[0]
    while wall <= walls[-1]:
        if (
            wall.minute in fields.minutes
            and wall.hour in fields.hours
            and wall.month in fields.months
            and fields.match_day(wall.date())
        ):
            # A time that is never shown: the next one that is.
            there = wall
            while there not in first and there < walls[-1]:
                there += MINUTE
            found.add(first[there])
        wall += MINUTE
    return sorted(moment for moment in found if after < moment <= until)


# --- Daylight saving -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "change", "expected"),
    [
        ("Europe/Berlin", "forward", ["28 02:30+0100", "29 03:00+0200", "30 02:30+0200"]),
        ("Europe/Berlin", "back", ["24 02:30+0200", "25 02:30+0200", "26 02:30+0100"]),
        ("America/New_York", "forward", ["07 02:30-0500", "08 03:00-0400", "09 02:30-0400"]),
        ("America/New_York", "back", ["31 02:30-0400", "01 02:30-0500", "02 02:30-0500"]),
        ("Australia/Lord_Howe", "forward", ["04 02:30+1100", "05 02:30+1100", "06 02:30+1100"]),
        ("Australia/Lord_Howe", "back", ["05 02:30+1030", "06 02:30+1030", "07 02:30+1030"]),
    ],
)
def test_a_fixed_time_ticks_once_on_the_day_of_each_change(zone: str, change: str, expected: list[str]) -> None:
    assert local("30 2 * * *", zone, CHANGES[zone, change], 3) == expected


@pytest.mark.parametrize(
    ("zone", "time", "change", "expected"),
    [
        # In the gap: at the moment after it.
        ("Europe/Berlin", "15 2", "forward", "29 03:00+0200"),
        ("America/New_York", "59 2", "forward", "08 03:00-0400"),
        ("Australia/Lord_Howe", "15 2", "forward", "04 02:30+1100"),
        # Shown twice: the first time.
        ("Europe/Berlin", "15 2", "back", "25 02:15+0200"),
        ("America/New_York", "30 1", "back", "01 01:30-0400"),
        ("Australia/Lord_Howe", "45 1", "back", "05 01:45+1100"),
    ],
)
def test_a_fixed_time_that_is_skipped_or_shown_twice(zone: str, time: str, change: str, expected: str) -> None:
    assert expected in local(f"{time} * * *", zone, CHANGES[zone, change], 3)
    assert len({tick[:2] for tick in local(f"{time} * * *", zone, CHANGES[zone, change], 3)}) == 3


@pytest.mark.parametrize(
    ("zone", "change", "expected"),
    [
        # The hour from 2 to 3 is not there …
        ("Europe/Berlin", "forward", ["29 01:30+0100", "29 03:00+0200"]),
        ("America/New_York", "forward", ["08 01:30-0500", "08 03:00-0400"]),
        ("Australia/Lord_Howe", "forward", ["04 01:30+1030", "04 02:30+1100"]),
        # … or twice.
        ("Europe/Berlin", "back", ["25 02:00+0200", "25 02:30+0200", "25 02:00+0100", "25 02:30+0100"]),
        ("America/New_York", "back", ["01 01:00-0400", "01 01:30-0400", "01 01:00-0500", "01 01:30-0500"]),
        ("Australia/Lord_Howe", "back", ["05 01:30+1100", "05 01:30+1030"]),
    ],
)
def test_times_that_recur_come_as_the_clock_shows_them(zone: str, change: str, expected: list[str]) -> None:
    found = local("*/30 * * * *", zone, CHANGES[zone, change], 100)
    places = [found.index(tick) for tick in expected]
    assert places == list(range(places[0], places[0] + len(expected)))


def test_an_interval_knows_no_clock() -> None:
    for after in CHANGES.values():
        found = following(Every(timedelta(hours=6)), after, 20)
        assert {later - earlier for earlier, later in pairwise(found)} == {timedelta(hours=6)}
        assert all(tick.hour % 6 == 0 and tick.minute == 0 for tick in found)


def test_two_times_that_fall_on_one_moment_are_one_tick() -> None:
    assert local("0,30 2,3 * * *", "Europe/Berlin", CHANGES["Europe/Berlin", "forward"] + timedelta(hours=12), 3) == [
        "29 03:00+0200",
        "29 03:30+0200",
        "30 02:00+0200",
    ]


def test_a_day_that_a_zone_leaves_out() -> None:
    assert local("0 9 * * *", "Pacific/Apia", SAMOA, 4) == [
        "28 09:00-1000",
        "29 09:00-1000",
        "31 00:00+1400",
        "31 09:00+1400",
    ]
    assert local("0 */12 * * *", "Pacific/Apia", SAMOA + timedelta(days=1, hours=10), 3) == [
        "29 12:00-1000",
        "31 00:00+1400",
        "31 12:00+1400",
    ]


PARTS = st.sampled_from(["0", "30", "15,45", "*/15", "*", "7-9", "59", "*/30", "0-40/20"])
HOURS = st.sampled_from(["*", "0", "1", "2", "1-3", "*/2", "2,3", "23", "3", "*/5"])
DAYS = st.sampled_from(["* * *", "* * sun", "* * mon-fri", "25-31 * *", "L * *", "* 3,10 *"])
PLACES = st.sampled_from([*CHANGES.values(), SAMOA])
ZONES = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "UTC", "Asia/Kolkata"]
)


@settings(max_examples=50, deadline=None)
@given(minutes=PARTS, hours=HOURS, days=DAYS, zone=ZONES, start=PLACES)
def test_ticks_are_those_of_the_clock_looked_at_minute_by_minute(
    minutes: str, hours: str, days: str, zone: str, start: datetime
) -> None:
    rule, until = Cron(f"{minutes} {hours} {days}", zone), start + timedelta(days=3)
    if minutes.startswith("*") or hours.startswith("*"):
        expected = [moment for n in range(1, 3 * 1440 + 1) if shown(rule, moment := start + n * MINUTE)]
    else:
        expected = first_shown(rule, start, until)
    assert ticks(rule, start, until) == expected


@settings(max_examples=50, deadline=None)
@given(minutes=PARTS, hours=HOURS, zone=ZONES, start=PLACES, offset=st.integers(0, 4 * 86_400))
def test_where_one_begins_makes_no_difference(
    minutes: str, hours: str, zone: str, start: datetime, offset: int
) -> None:
    """A worker that restarts in the middle of a change goes on with the same ticks."""
    rule = Cron(f"{minutes} {hours} * * *", zone)
    middle = start + timedelta(seconds=offset)
    whole = ticks(rule, start, start + timedelta(days=5))
    assert ticks(rule, start, middle) + ticks(rule, middle, start + timedelta(days=5)) == whole
    assert whole == sorted(set(whole))


# --- Intervals, seconds, ends -------------------------------------------------------------------------------------------


@given(seconds=st.integers(1, 10**8), micro=st.sampled_from([0, 1, 500_000]), after=st.integers(-(10**9), 4 * 10**9))
def test_an_interval_is_counted_from_1970(seconds: int, micro: int, after: int) -> None:
    interval, moment = timedelta(seconds=seconds, microseconds=micro), EPOCH + timedelta(seconds=after)
    tick = Every(interval).next(moment)
    assert moment < tick <= moment + interval
    assert (tick - EPOCH) % interval == timedelta(0)


def test_six_fields_begin_with_seconds() -> None:
    start = datetime(2026, 3, 29, 0, 59, 30, tzinfo=UTC)
    assert [tick.strftime("%H:%M:%S") for tick in following(Cron("*/20 * * * * *", "Europe/Berlin"), start, 3)] == [
        "00:59:40",
        "01:00:00",
        "01:00:20",
    ]
    half = start + timedelta(microseconds=500_000)
    assert Cron("* * * * * *").next(half) == start + timedelta(seconds=1)


def test_the_last_ticks_of_a_long_time_cost_no_more_than_those_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    original = Cron.next

    def counted(self: Cron, after: datetime) -> datetime:
        nonlocal calls
        calls += 1
        return original(self, after)

    monkeypatch.setattr(Cron, "next", counted)
    until = datetime(2026, 1, 1, tzinfo=UTC)
    found = latest(Cron("* * * * * *"), datetime(2000, 1, 1, tzinfo=UTC), until, 100)
    assert found == [until - timedelta(seconds=n) for n in range(99, -1, -1)]
    assert calls < 1000
    assert latest(Cron("0 0 29 2 *"), datetime(2000, 1, 1, tzinfo=UTC), until, 2) == [
        datetime(2020, 2, 29, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=UTC),
    ]


def test_the_end_of_the_calendar_is_an_end() -> None:
    late = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    for rule in (Cron("0 7 * * *"), Cron("* * * * *", "UTC"), Every(timedelta(days=1))):
        with pytest.raises(NoNextRun):
            rule.next(late)
        assert following(rule, late, 3) == []


# --- Words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Cron("0 7 * * mon-fri", "Europe/Berlin"), "at 07:00 on Monday through Friday, Europe/Berlin"),
        (Cron("*/15 * * * *"), "every 15th minute of every hour, UTC"),
        (Cron("@daily"), "at 00:00 every day, UTC"),
        (Cron("0 0 L * *"), "at 00:00 on the last day of every month, UTC"),
        (Every(timedelta(minutes=1)), "every minute"),
        (Every(timedelta(hours=36)), "every 1 day 12 hours"),
        (Every(timedelta(seconds=1.5)), "every 1.5 seconds"),
    ],
)
def test_words(rule: When, words: str) -> None:
    assert rule.describe() == words


# --- Bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("61 * * * *", r"cron='61 \* \* \* \*': its minute '61' is invalid; expected 0 to 59"),
        ("0 24 * * *", "its hour '24' is invalid; expected 0 to 23"),
        ("0 0 32 * *", "its day of month '32' is invalid"),
        ("0 0 * 13 *", "its month '13' is invalid; expected 1 to 12"),
        ("0 7 * * mon-fry", "its day of week 'mon-fry' is invalid; expected 0 to 7"),
        ("60 0 0 * * *", "its second '60' is invalid"),
        ("*/0 * * * *", "its minute"),
        ("0 0 30 2 *", "its day of month '30' is invalid; expected a day that its months have"),
        ("0 0 31 4,6,9,11 *", "its day of month '31' is invalid"),
        ("tomorrow", "it has 1 fields instead of 5"),
        ("0 7 * * mon-fri 2026 *", "it has 7 fields instead of 5, or 6 with seconds first"),
        ("@often", "of the words with @, @yearly"),
        ("", "expected an expression of at most 200 characters"),
        ("* " * 200, "expected an expression of at most 200 characters"),
        (None, "expected an expression"),
        (["0 7 * * *"], "expected an expression"),
    ],
)
def test_a_bad_expression_is_refused_with_the_field_and_what_to_do(expression: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        Cron(expression)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789*/,-LW#@? monfrisu\t", max_size=40))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        rule = Cron(text)
    except InvalidOption as error:
        assert "cron=" in str(error)  # noqa: PT017  (only where it is refused)
    else:
        assert rule.next(datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)
        assert rule.describe()


@pytest.mark.parametrize(
    ("zone", "said"),
    [
        ("Berlin", "timezone='Berlin' is no zone that is known here; did you mean Europe/Berlin"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("Europe/Berln", "did you mean Europe/Berlin"),
        ("New York", "did you mean America/New_York"),
        ("Mars/Phobos", "expected an IANA name"),
        ("", "expected an IANA name"),
        ("../../etc/passwd", "is no zone"),
        (1, "expected an IANA name"),
    ],
)
def test_an_unknown_zone_is_refused_with_near_ones(zone: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        Cron("0 7 * * *", zone)


@pytest.mark.parametrize(
    "every", [timedelta(0), timedelta(seconds=-5), timedelta(milliseconds=999), timedelta(days=40000)]
)
def test_an_interval_that_cannot_be(every: timedelta) -> None:
    with pytest.raises(InvalidOption, match="expected a timedelta between one second and 100 years"):
        Every(every)


def test_either_an_expression_or_an_interval() -> None:
    with pytest.raises(InvalidOption, match="expected a timedelta, such as"):
        when(None, 60)  # type: ignore[arg-type]
    for cron, every in ((None, None), ("0 7 * * *", timedelta(hours=1))):
        with pytest.raises(InvalidOption, match="expected either a cron expression"):
            when(cron, every)
    with pytest.raises(InvalidOption, match="timezone='Europe/Berlin': an interval is counted in UTC"):
        when(None, timedelta(hours=1), "Europe/Berlin")
