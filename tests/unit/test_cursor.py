"""The cursor of claims against a model of the database: whatever the order of commits, each job is found in time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobq.config import Settings
from jobq.worker import cursor as module
from jobq.worker.cursor import BEGINNING, NEAR_ENTRIES, Cursor, Horizon, Position, Sight
from jobq.worker.database import Connection, Database
from jobq.worker.survey import Survey

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


@dataclass
class Job:
    run_at: int
    id: int
    xid: int
    taken: bool = False

    @property
    def position(self) -> Position:
        return (self.run_at, self.id)


@dataclass
class Model:
    """One queue of one priority, its writers' transactions, and a clock. Times in microseconds."""

    now: int = START
    next_xid: int = 100
    ended: int = 100
    """The newest transaction that has ended."""
    next_id: int = 1
    writing: set[int] = field(default_factory=set)
    jobs: list[Job] = field(default_factory=list)
    dead: list[Position] = field(default_factory=list)
    walked: int = 0
    """How many dead entries the last claim walked over."""

    def __post_init__(self) -> None:
        self.cursor = Cursor(clock=lambda: self.now / SECOND)
        self.claim(1)

    def begin(self) -> int:
        self.next_xid += 1
        self.writing.add(self.next_xid)
        return self.next_xid

    def insert(self, xid: int, delay: int = 0) -> Job:
        job = Job(self.now + delay, self.next_id, xid)
        self.next_id += 1
        self.jobs.append(job)
        return job

    def commit(self, xid: int) -> None:
        self.writing.discard(xid)
        self.ended = max(self.ended, xid)

    def claim(self, want: int, *, full: bool = False) -> list[Job]:
        scan = self.cursor.plan(["q"], [5], full=full)
        (since,) = scan.since
        # As PostgreSQL takes snapshots: of what is above the newest that has ended they do not speak.
        xmin = min((xid for xid in self.writing if xid <= self.ended), default=self.ended + 1)
        visible = sorted(
            (job for job in self.jobs if job.xid not in self.writing and not job.taken and job.run_at <= self.now),
            key=lambda job: job.position,
        )
        found = [job for job in visible if job.position >= since][:want]
        self.walked = sum(since <= dead for dead in self.dead if not found or dead <= found[-1].position)
        for job in found:
            job.taken = True
        self.dead += [job.position for job in found]
        self.jobs = [job for job in self.jobs if not job.taken]
        cut = len(found) == want
        sight = Sight(
            at=self.now,
            xmin=xmin,
            following=self.next_xid + 1,
            cut=0 if cut else None,
            last=found[-1].position if cut else BEGINNING,
            counts=((0, len(found)),) if found else (),
        )
        self.cursor.read(scan, sight)
        return found


@pytest.fixture(autouse=True)
def no_full_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found must not be found by the remedy for all else."""
    monkeypatch.setattr(module, "FULL_EVERY", (1e9, 1e9))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "insert", "insert", "commit", "claim", "claim", "burst"]),
        st.integers(0, 7),
        st.integers(0, 400_000),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 4))
def test_every_committed_job_is_found_by_the_next_near_reading(steps: list[tuple[str, int, int]], want: int) -> None:
    model = Model()
    open_: list[int] = []
    for step, number, microseconds in steps:
        model.now += microseconds
        match step:
            case "begin":
                open_.append(model.begin())
            case "insert" if open_:
                model.insert(open_[number % len(open_)], delay=microseconds if number > 5 else 0)
            case "commit" if open_:
                model.commit(open_.pop(number % len(open_)))
            case "burst":
                for _ in range(want + 2):
                    xid = model.begin()
                    model.insert(xid)
                    model.commit(xid)
            case "claim":
                model.claim(want)
    for xid in open_:
        model.commit(xid)
    # Everything is due and visible: claims bring all of it, for each reading begins as low as anything can have surfaced,
    # at the latest after the interval.
    model.now += SECOND
    waiting = len(model.jobs)
    for _ in range(waiting // want + 1):
        model.claim(want)
    model.now += SECOND
    while model.claim(want):
        pass
    assert model.jobs == []


def test_an_insert_held_open_is_found_though_others_were_claimed_after_it() -> None:
    model = Model()
    slow = model.begin()
    early = model.insert(slow)
    for _ in range(5 * NEAR_ENTRIES):
        model.now += 1000
        xid = model.begin()
        model.insert(xid)
        model.commit(xid)
        model.claim(100)
    model.commit(slow)
    model.now += SECOND // 2
    assert model.claim(100) == [early]


def test_an_insert_held_open_is_found_though_nobody_else_writes() -> None:
    """The snapshots of that time do not know of it: nobody who came later has ended."""
    model = Model()
    slow = model.begin()
    job = model.insert(slow)
    for _ in range(10):
        model.now += SECOND
        assert model.claim(10) == []
    model.commit(slow)
    assert model.claim(10) == [job]


def test_claims_do_not_walk_over_what_they_have_left_behind() -> None:
    """With a writer that stays open: of a thousand claims few look below the cursor."""
    model = Model()
    model.begin()
    walked = []
    for _ in range(3 * NEAR_ENTRIES):
        model.now += 1000
        xid = model.begin()
        model.insert(xid)
        model.commit(xid)
        model.claim(100)
        walked.append(model.walked)
    costly = [steps for steps in walked if steps > 1]
    assert max(walked[: NEAR_ENTRIES + 100]) <= NEAR_ENTRIES + 100
    # From then on four times a second.
    assert sum(steps > NEAR_ENTRIES for steps in costly) <= 2 * 6


def test_a_backlog_is_read_once() -> None:
    model = Model()
    for _ in range(500):
        model.now += 10
        xid = model.begin()
        model.insert(xid)
        model.commit(xid)
    model.now += 60 * SECOND
    walked = []
    while model.claim(10):
        walked.append(model.walked)
    assert len(walked) == 50
    assert sum(walked) <= 50


def test_jobs_of_one_moment_are_told_apart_by_their_ids() -> None:
    model = Model()
    xid = model.begin()
    for _ in range(500):
        model.insert(xid)
    model.commit(xid)
    model.now += 60 * SECOND
    walked = []
    while model.claim(10):
        walked.append(model.walked)
    assert len(walked) == 50
    assert sum(walked) <= 50


def test_nothing_is_known_when_the_clock_of_the_database_was_set_back() -> None:
    horizon = Horizon()
    horizon.saw(START, 100, 100)
    assert horizon.floor > 0
    horizon.saw(START - SECOND, 100, 101)
    assert horizon.floor == 0


def test_the_samples_of_a_writer_of_hours_are_few_and_still_serve() -> None:
    horizon = Horizon()
    for second in range(3600):
        horizon.saw(START + second * SECOND, 100, 101 + second)
    assert horizon.floor == 0
    assert len(horizon._samples) <= 2 * module._SAMPLES
    horizon.saw(START + 3600 * SECOND, 101 + 1800, 101 + 3600)
    behind = START + 1800 * SECOND - horizon.floor
    assert 0 <= behind <= 120 * SECOND


def test_a_costly_full_reading_is_made_less_often() -> None:
    now = [1000.0]
    cursor = Cursor(clock=lambda: now[0])
    cursor.read_fully(100.0)
    assert cursor.full_is_costly
    now[0] += 599
    assert not cursor.full_due


def test_told_of_a_job_and_finding_none_hastens_the_full_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FULL_EVERY", (20.0, 20.0))
    now = [1000.0]
    cursor = Cursor(clock=lambda: now[0])
    cursor.read_fully(0.001)
    assert not cursor.full_due
    cursor.hasten()
    assert cursor.hastened == 1001.0
    now[0] = 1001.0
    assert cursor.full_due


def test_a_survey_moves_only_what_lies_above_its_find() -> None:
    model = Model()
    model.now += SECOND
    model.claim(5)
    late = Job(START - 3600 * SECOND, 999, 1)
    model.jobs.append(late)
    assert model.claim(5) == []
    assert not model.cursor.sink(["q"], [5], [None])
    assert model.cursor.sink(["q"], [5], [late.position])
    assert model.claim(5) == [late]


def _claimed(cursor: Cursor, at: int) -> None:
    """A claim that found nothing, while nobody was writing."""
    scan = cursor.plan(["q"], [5])
    cursor.read(scan, Sight(at=at, xmin=100, following=100))


def test_what_a_reading_elsewhere_finds_outlives_the_claim_that_is_under_way() -> None:
    """Under load one always is, and it was planned before."""
    cursor = Cursor()
    _claimed(cursor, START)
    scan = cursor.plan(["q"], [5])
    below = (START - 60 * SECOND, 7)
    assert cursor.sink(["q"], [5], [below])
    cursor.read(scan, Sight(at=START + SECOND, xmin=100, following=100))
    assert cursor.plan(["q"], [5]).since == [below]
    _claimed(cursor, START + SECOND)
    assert cursor.plan(["q"], [5]).since > [below]


def test_nothing_is_hastened_while_a_reading_elsewhere_is_under_way() -> None:
    """It would be due at once, and as long as that lasts: one empty claim after the other."""
    now = [1000.0]
    cursor = Cursor(clock=lambda: now[0])
    cursor.read_fully(0.1)
    now[0] += 60
    cursor.reading()
    cursor.hasten()
    assert not cursor.full_due
    assert cursor.hastened == math.inf
    cursor.read_fully(0.1)
    assert cursor.hastened == now[0] + 5
    now[0] += 5
    assert cursor.full_due


def test_nothing_is_hastened_while_there_is_nothing_to_read() -> None:
    """All queues are paused: a loop that waits for the time of a reading that is never made would not wait at all."""
    now = [1000.0]
    cursor = Cursor(clock=lambda: now[0])
    cursor.read_fully(0.001)
    cursor.hasten()
    now[0] += 2
    cursor.plan([], [])
    assert cursor.hastened == math.inf
    assert cursor.full_due


async def test_a_reading_elsewhere_that_fails_at_once_does_not_make_readings_cheap() -> None:
    """Else the next is made by a claim, which is held up by it."""

    class Refusing(Database):
        async def connect(self, *_: Any, **__: Any) -> Connection:
            raise psycopg.OperationalError("too many clients")

    cursor = Cursor()
    cursor.read_fully(3.0)
    survey = Survey(Refusing(Settings(database_url="postgresql://nowhere")), "jobq", cursor, lambda: None)
    survey.begin((["q"], [5]))
    assert survey._task is not None
    await survey._task
    assert cursor.full_took == 3.0
