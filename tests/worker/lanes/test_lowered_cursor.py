"""Lowering a cursor: what came back to its old place is read, whenever the word of it comes."""

from __future__ import annotations

from jobq._worker.lanes.cursor import ClaimPlan, ClaimSnapshot, Cursor

QUEUES, PRIORITIES = ["a", "b"], [5, 5]
PLACE = 1_000_000_000_000_000
LATER = PLACE + 60_000_000


def sight(at: int) -> ClaimSnapshot:
    """A claim that read all lanes to their ends at this time, while no transaction was writing."""
    return ClaimSnapshot(at=at, xmin=100, following=100)


def begin(cursor: Cursor) -> ClaimPlan:
    return cursor.plan(QUEUES, PRIORITIES)


def read_to_the_end(cursor: Cursor, at: int = LATER) -> None:
    cursor.read(begin(cursor), sight(at))
    assert all(since > (PLACE, 0) for since in begin(cursor).since)


def test_the_next_claim_begins_at_the_old_place_in_that_queue_only() -> None:
    cursor = Cursor()
    read_to_the_end(cursor)
    cursor.lower("a", PLACE)
    first, second = begin(cursor).since
    assert first == (PLACE, 0)
    assert second > (PLACE, 0)


def test_a_claim_under_way_does_not_take_the_word_back() -> None:
    """Its snapshot may be older than what came back, and above its own beginning."""
    cursor = Cursor()
    under_way = begin(cursor)
    cursor.lower("a", PLACE)
    cursor.read(under_way, sight(LATER))
    assert begin(cursor).since[0] <= (PLACE, 0)


def test_neither_does_a_look_of_the_lead_poller() -> None:
    cursor = Cursor()
    under_way = begin(cursor)
    cursor.lower("a", PLACE)
    cursor.looked(under_way, sight(LATER), {}, gone=0)
    assert begin(cursor).since[0] <= (PLACE, 0)


def test_once_read_it_is_over() -> None:
    cursor = Cursor()
    read_to_the_end(cursor)
    cursor.lower("a", PLACE)
    cursor.read(begin(cursor), sight(LATER + 1))
    assert begin(cursor).since[0] > (PLACE, 0)


def test_a_place_above_changes_nothing_and_one_before_1970_is_the_beginning() -> None:
    cursor = Cursor()
    read_to_the_end(cursor)
    before = begin(cursor).since
    cursor.lower("a", LATER + 1_000_000)
    assert begin(cursor).since == before
    cursor.lower("a", -5)
    assert begin(cursor).since[0] == (0, 0)


def test_a_reading_that_began_before_does_not_forget_what_was_lowered() -> None:
    """Its snapshot may be older than what came back, so it says nothing of those lanes."""
    cursor = Cursor()
    read_to_the_end(cursor)
    words = cursor.words
    cursor.lower("a", PLACE)
    cursor.keep(lambda _: False, (LATER, 0), words)
    assert begin(cursor).since[0] <= (PLACE, 0)
    cursor.keep(lambda _: False, (LATER, 0), cursor.words)
    assert begin(cursor).since[0] > (PLACE, 0)
