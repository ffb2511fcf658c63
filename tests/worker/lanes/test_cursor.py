"""The cursor of claims against a model of the database: whatever the order of commits, each job is found in time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobq._worker.lanes import cursor as module
from jobq._worker.lanes import horizon as horizon_module
from jobq._worker.lanes.cursor import (
    BEGINNING,
    MOST_LANES,
    NEAR_ENTRIES,
    ClaimSnapshot,
    Cursor,
    Position,
)
from jobq._worker.lanes.horizon import VisibilityHorizon

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

    def read(self, *, known: bool = True) -> None:
        """Read all lanes from their beginnings. `known`: the lane is one of those that are kept, jobs or none."""
        floor = self.cursor.floor
        visible = sorted(job.position for job in self.jobs if job.xid not in self.writing and not job.taken)
        if visible:
            self.cursor.found(("q", 5), visible[0], floor)
        self.cursor.keep(lambda _: known or bool(visible), floor)

    def claim(self, want: int) -> list[Job]:
        scan = self.cursor.plan(["q"], [5])
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
        sight = ClaimSnapshot(
            at=self.now,
            xmin=xmin,
            following=self.next_xid + 1,
            cut=0 if cut else None,
            last=found[-1].position if cut else BEGINNING,
            counts=((0, len(found)),) if found else (),
        )
        self.cursor.read(scan, sight)
        return found


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "insert", "insert", "commit", "claim", "claim", "burst", "drop"]),
        st.integers(0, 7),
        st.integers(0, 400_000),
    ),
    max_size=80,
)


@pytest.mark.parametrize("most_lanes", [MOST_LANES, 0])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, want=st.integers(1, 4))
def test_every_committed_job_is_found_by_the_next_near_reading(
    monkeypatch: pytest.MonkeyPatch, most_lanes: int, steps: list[tuple[str, int, int]], want: int
) -> None:
    monkeypatch.setattr(module, "MOST_LANES", most_lanes)
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
            case "drop":
                # The lane has no job, as far as is seen, and is forgotten; or it has one, and is read again from there.
                model.read(known=number > 3)
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
    """The snapshots of that time do not know of it: no transaction that came later has ended."""
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
    horizon = VisibilityHorizon()
    horizon.saw(START, 100, 100)
    assert horizon.floor > 0
    horizon.saw(START - SECOND, 100, 101)
    assert horizon.floor == 0


def test_the_samples_of_a_writer_of_hours_are_few_and_still_serve() -> None:
    horizon = VisibilityHorizon()
    for second in range(3600):
        horizon.saw(START + second * SECOND, 100, 101 + second)
    assert horizon.floor == 0
    assert len(horizon._samples) <= 2 * horizon_module._SAMPLES
    horizon.saw(START + 3600 * SECOND, 101 + 1800, 101 + 3600)
    behind = START + 1800 * SECOND - horizon.floor
    assert 0 <= behind <= 120 * SECOND


def test_a_reading_moves_only_what_lies_above_its_find() -> None:
    model = Model()
    model.now += SECOND
    model.claim(5)
    late = Job(START - 3600 * SECOND, 999, 1)
    assert model.claim(5) == []
    model.read()
    assert model.claim(5) == []
    model.jobs.append(late)
    model.read()
    assert model.claim(5) == [late]


def test_a_lane_that_was_forgotten_does_not_begin_over_its_dead_entries() -> None:
    """Each customer's queue is empty now and then; while a snapshot is held, what it had lies there still."""
    model = Model()
    for _ in range(3 * NEAR_ENTRIES):
        model.now += 1000
        xid = model.begin()
        model.insert(xid)
        model.commit(xid)
        model.claim(100)
    model.now += SECOND
    model.claim(1)
    model.read(known=False)
    assert len(model.cursor) == 0
    xid = model.begin()
    job = model.insert(xid)
    model.commit(xid)
    assert model.claim(100) == [job]
    assert model.walked == 0


def test_a_queue_that_is_served_again_is_read_from_its_beginning() -> None:
    """What it got meanwhile no reading has noted."""
    model = Model()
    xid = model.begin()
    job = model.insert(xid)
    model.commit(xid)
    floor = model.cursor.floor
    model.now += SECOND
    model.cursor.keep(lambda _: False, floor)
    model.now += SECOND
    model.cursor.plan([], [])
    model.cursor.doubt()
    assert model.claim(5) == [job]


def test_queues_that_came_and_went_take_no_memory() -> None:
    cursor, now = Cursor(), START
    for batch in range(40):
        now += SECOND
        names = [f"{batch}-{n}" for n in range(500)]
        scan = cursor.plan(names, [5] * 500)
        counts = tuple((place, 1) for place in range(500))
        cursor.read(scan, ClaimSnapshot(at=now, xmin=100, following=100, counts=counts))
    assert len(cursor) <= MOST_LANES
    # A look at when they have something next is no reason to remember them.
    cursor.plan([f"0-{n}" for n in range(500)], [5] * 500, remember=False)
    assert len(cursor) <= MOST_LANES
    # One that has jobs left is known, and one that was lowered.
    scan = cursor.plan(["full", "other"], [5, 5])
    cursor.read(scan, ClaimSnapshot(at=now, xmin=100, following=100, cut=0, last=(now - SECOND, 7), counts=((0, 100),)))
    cursor.lower("back", now - 5 * SECOND)
    cursor.read(cursor.plan(["back"], [5]), ClaimSnapshot(at=now, xmin=100, following=100))
    assert cursor.plan(["full", "back"], [5, 5]).since == [(now - SECOND, 8), (now - 100_000, 0)]


def test_what_was_put_back_in_its_place_is_found() -> None:
    model = Model()
    xid = model.begin()
    job = model.insert(xid)
    model.commit(xid)
    model.now += SECOND
    assert model.claim(5) == [job]
    model.now += SECOND
    model.claim(5)
    scan = model.cursor.plan(["q"], [5])
    job.taken = False
    model.jobs.append(job)
    model.cursor.lower("q")
    # A claim that was under way has not seen it.
    model.cursor.read(scan, ClaimSnapshot(at=model.now, xmin=model.next_xid + 1, following=model.next_xid + 1))
    assert model.claim(5) == [job]


def test_a_held_writer_does_not_make_the_cursor_grow() -> None:
    model = Model()
    model.begin()
    for _ in range(500):
        model.now += 1000
        xid = model.begin()
        model.insert(xid)
        model.commit(xid)
        model.claim(100)
        scan = model.cursor.plan(["q"], [5])
        model.cursor.looked(scan, ClaimSnapshot(at=model.now, xmin=100, following=model.next_xid + 1), {}, gone=1)
    (lane,) = model.cursor._lanes.values()
    assert len(lane.claims) <= 64
    assert lane.dead == sum(jobs for _, jobs in lane.claims)


def _claimed(cursor: Cursor, at: int) -> None:
    """A claim that found nothing, while no transaction was writing."""
    scan = cursor.plan(["q"], [5])
    cursor.read(scan, ClaimSnapshot(at=at, xmin=100, following=100))


def test_what_a_reading_elsewhere_finds_outlives_the_claim_that_is_under_way() -> None:
    """Under load one always is, and it was planned before."""
    cursor = Cursor()
    _claimed(cursor, START)
    scan = cursor.plan(["q"], [5])
    below = (START - 60 * SECOND, 7)
    assert cursor.found(("q", 5), below, cursor.floor)
    cursor.read(scan, ClaimSnapshot(at=START + SECOND, xmin=100, following=100))
    assert cursor.plan(["q"], [5]).since == [below]
    _claimed(cursor, START + SECOND)
    assert cursor.plan(["q"], [5]).since > [below]
