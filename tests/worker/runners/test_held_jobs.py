"""What a runner holds: taken back, or reported, and each only once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobq._worker.ipc.messages import Disposition, Failure, Job, Success
from jobq._worker.ipc.slot_table import SETTLED, SlotTable
from jobq._worker.runners.held_jobs import HeldJobs
from jobq._worker.runners.liveness import Liveness


@pytest.fixture
def table() -> Iterator[SlotTable]:
    table = SlotTable.create(2)
    yield table
    table.close()


@pytest.fixture
def held(table: SlotTable) -> HeldJobs:
    return HeldJobs(table, 5.0)


def job(number: int, claims: int = 1) -> Job:
    return Job(number, claims, "task", "mail", b"{}", 2, 3, 0, None, b"{}")


def test_serials_go_on_from_one_assignment_to_the_next(held: HeldJobs) -> None:
    assert held.assign([job(7), job(8)], 6.0) == 1
    assert held.assign([job(9)], 6.5) == 3
    assert [(each.job.id, each.serial, each.since) for each in held.by_id.values()] == [
        (7, 1, 6.0),
        (8, 2, 6.0),
        (9, 3, 6.5),
    ]


def test_only_what_was_assigned_before_a_recall_and_has_not_started_is_taken_back(
    held: HeldJobs, table: SlotTable
) -> None:
    held.assign([job(1), job(2)], 6.0)
    assert table.start(0, 1, 1, 1, now=6.0, deadline=None)
    held.revoke(7.0)
    held.assign([job(3)], 7.01)
    assert held.take_revoked(7.0 + SETTLED / 2) == []
    assert [each.id for each in held.take_revoked(7.0 + 2 * SETTLED)] == [2]
    assert (sorted(held.by_id), held.given) == ([1, 3], 2)
    # Once only.
    assert held.take_revoked(8.0) == []
    # The runner sees it, too: the later job may start, the one that was taken back may not.
    assert not table.start(1, 2, 2, 1, now=7.2, deadline=None)
    assert table.start(1, 3, 3, 1, now=7.2, deadline=None)


def test_an_outcome_of_another_execution_is_not_taken(held: HeldJobs) -> None:
    held.assign([job(1, claims=2)], 6.0)
    late, own = (Success(1, claims, 0, b"", 0.1) for claims in (1, 2))
    assert held.take([late]) == []
    assert held.take([late, own, own]) == [own]
    assert held.by_id == {}


def test_it_is_idle_since_its_last_job_ended(held: HeldJobs) -> None:
    assert held.idle_since == 5.0
    held.assign([job(1)], 6.0)
    held.revoke(7.0)
    held.take_revoked(8.0)
    assert held.idle_since == 8.0


def test_a_setback_gets_what_the_log_tells_of_its_job(held: HeldJobs) -> None:
    held.assign([job(1)], 6.0)
    told = held.add_job_info(Failure(1, 1, 0, Disposition.RETRY))
    assert (told.task, told.queue, told.attempt, told.max_attempts) == ("task", "mail", 2, 3)
    unknown = Failure(2, 1, 0, Disposition.RETRY)
    assert held.add_job_info(unknown) is unknown


def test_an_outcome_is_owed_from_the_end_of_a_job_until_it_is_heard(held: HeldJobs, table: SlotTable) -> None:
    held.assign([job(1), job(2)], 6.0)
    assert not held.owes_outcome(table.started())
    table.start(0, 1, 1, 1, now=6.0, deadline=None)
    assert not held.owes_outcome(table.started())
    table.clear(0)
    assert held.owes_outcome(table.started())
    held.take([Success(1, 1, 0, b"", 0.1)])
    assert not held.owes_outcome(table.started())


def test_silence_is_counted_only_while_an_outcome_is_owed_and_the_runner_reacts(
    held: HeldJobs, table: SlotTable
) -> None:
    liveness = Liveness(table, held)
    held.assign([job(1)], 6.0)
    table.start(0, 1, 1, 1, now=6.0, deadline=None)
    table.clear(0)
    liveness.check_reports(table.started(), 100)
    assert liveness.silent_checks == 0  # something has come since the last check
    for _ in range(3):
        liveness.check_reports(table.started(), 100)
    assert liveness.silent_checks == 3
    liveness.check_heartbeat(1000.0, imported=True)
    liveness.check_reports(table.started(), 100)
    assert (liveness.silent_checks, liveness.unresponsive_since) == (3, 1000.0)
    liveness.check_reports(table.started(), 101)
    assert liveness.silent_checks == 0


def test_a_runner_is_stuck_after_checks_not_after_seconds(held: HeldJobs, table: SlotTable) -> None:
    liveness = Liveness(table, held)
    table.beat(10.0, 0.0)
    # Before the application is imported there is no pulse to feel.
    liveness.check_heartbeat(1000.0, imported=False)
    assert (liveness.unresponsive_since, liveness.stuck) == (None, False)
    # A pause of the machine is one check, however long it lasted.
    liveness.check_heartbeat(1000.0, imported=True)
    assert not liveness.stuck
    for look in range(10):
        liveness.check_heartbeat(1000.1 + look / 10, imported=True)
    assert (liveness.stuck, liveness.unresponsive_since) == (True, 1000.0)
    table.beat(1001.2, 0.0)
    liveness.check_heartbeat(1001.3, imported=True)
    assert (liveness.stuck, liveness.unresponsive_since, liveness.unresponsive_checks) == (False, None, 0)
