"""A runner that is driven frame by frame: which jobs run at the same time, and when their outcomes are told."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest

from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import (
    CancelJobs,
    Disposition,
    Failure,
    FromRunner,
    Job,
    Outcomes,
    Progress,
    Run,
    RunnerReady,
    Success,
)
from jobq._worker.ipc.slot_table import SlotTable
from tests.support.checks import some
from tests.support.specs import spec

# Far more than anything here takes, also on a busy machine.
PATIENCE = 30.0


Call = tuple[str, dict[str, object]]
Outcome = Success | Failure


class Driven:
    """A runner, and our end of its socket."""

    def __init__(self, concurrency: int) -> None:
        self.table = SlotTable.create(concurrency)
        self.connection, theirs = socket.socketpair()
        self.connection.settimeout(PATIENCE)
        given = msgspec.structs.replace(
            spec(concurrency), app="tests.apps.rush:q", socket_fd=theirs.fileno(), slots_fd=self.table.fd
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobq._worker.runner.main"],
            pass_fds=(theirs.fileno(), self.table.fd),
            env={**os.environ, "JOBQ_RUNNER": msgspec.json.encode(given).decode()},
        )
        theirs.close()
        self._stream = self.connection.makefile("rb")
        self._serial = 0
        self.ended: dict[int, Outcome] = {}
        """What has been told, by job."""
        self.progress: list[Progress] = []
        assert isinstance(self.hear(), RunnerReady)

    def hear(self) -> FromRunner:
        size = messages.length(self._stream.read(messages.LENGTH_SIZE))
        message = messages.decode_from_runner(self._stream.read(size))
        match message:
            case Outcomes(successes, setbacks, recorded):
                assert not recorded
                outcomes: list[Outcome] = [*successes, *setbacks]
                for outcome in outcomes:
                    assert outcome.id not in self.ended, "told twice"
                    self.ended[outcome.id] = outcome
            case Progress():
                self.progress.append(message)
        return message

    def until(self, ids: list[int]) -> list[Outcome]:
        """Hear on until these have ended."""
        while not self.ended.keys() >= set(ids):
            self.hear()
        return [self.ended[job] for job in ids]

    def run(self, *calls: Call, timeout: float | None = None) -> list[int]:
        """Give it jobs in one frame; return their ids, which are their serials."""
        first = self._serial + 1
        jobs = [
            Job(number, 1, task, "default", json.dumps(args).encode(), 1, 5, 0, timeout, b"{}")
            for number, (task, args) in enumerate(calls, first)
        ]
        self._serial += len(jobs)
        self.connection.sendall(messages.encode(Run(first, uuid4(), jobs)))
        return [job.id for job in jobs]

    def cancel(self, ids: list[int]) -> None:
        self.connection.sendall(messages.encode(CancelJobs(ids)))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._stream.close()
        self.connection.close()
        self.table.close()


Drive = Callable[[int], Driven]


@pytest.fixture
def drive() -> Iterator[Drive]:
    made: list[Driven] = []

    def start(concurrency: int) -> Driven:
        made.append(Driven(concurrency))
        return made[-1]

    yield start
    for each in made:
        each.close()


def succeeded(outcomes: list[Outcome]) -> bool:
    return all(isinstance(outcome, Success) for outcome in outcomes)


def told_of(outcomes: list[Outcome], task: str) -> bool:
    """Whether these have succeeded; where slots compute beside it, the event loop may get no turn for the second after which
    its jobs are given back.
    """
    return all(
        isinstance(outcome, Success) or (task == "nothing_async" and outcome.ending is Disposition.RELEASE)
        for outcome in outcomes
    )


@pytest.mark.parametrize("tasks", [["meet"], ["meet_async"], ["meet", "meet_async"]])
def test_as_many_jobs_run_at_the_same_time_as_there_are_slots(drive: Drive, tasks: list[str]) -> None:
    runner = drive(10 * len(tasks))
    for _ in range(3):
        # Short ones before and between, so that one slot alone would keep up with most.
        calls: list[Call] = [("nothing", {}), ("nothing_async", {}), *((task, {}) for task in tasks)] * 10
        assert succeeded(runner.until(runner.run(*calls)))


@pytest.mark.parametrize("wait", ["wait_for", "wait_on_loop", "compute_until"])
@pytest.mark.parametrize("short", ["nothing", "nothing_async"])
@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_no_outcome_waits_for_the_next_job(
    drive: Drive, tmp_path: Path, wait: str, short: str, concurrency: int
) -> None:
    runner = drive(concurrency)
    for number in range(10):
        go = tmp_path / str(number)
        long: list[Call] = [(wait, {"path": str(go)})] * concurrency
        before, *held = runner.run((short, {}), *long, (short, {}))
        assert told_of(runner.until([before]), short)
        assert not runner.ended.keys() & set(held[:-1])
        go.touch()
        *longs, after = runner.until(held)
        assert succeeded(longs)
        assert told_of([after], short)


@pytest.mark.parametrize("wait", ["wait_for", "wait_on_loop", "compute_until"])
def test_jobs_do_not_wait_behind_a_slot_that_waits(drive: Drive, tmp_path: Path, wait: str) -> None:
    runner, go = drive(3), tmp_path / "go"
    long: Call = (wait, {"path": str(go)})
    short: list[Call] = [("nothing", {}), ("nothing_async", {})] * 100
    first, *others = runner.run(long, *short[:50], long, *short)
    second = others.pop(50)
    assert succeeded(runner.until(others))
    assert [slot.id for slot in runner.table.started()] in ([first, second], [second, first])
    go.touch()
    assert succeeded(runner.until([first, second]))


def test_an_event_loop_that_is_held_up_holds_up_no_slot(drive: Drive, tmp_path: Path) -> None:
    """What was meant for it goes back, and the slots go on with what needs none."""
    runner, go = drive(4), tmp_path / "go"
    (holding,) = runner.run(("hold_the_loop", {"path": str(go)}))
    ids = runner.run(*[("nothing_async", {})] * 10, *[("nothing", {})] * 10)
    given_back = runner.until(ids)
    assert succeeded(given_back[10:])
    assert {outcome.ending for outcome in given_back[:10] if isinstance(outcome, Failure)} == {Disposition.RELEASE}
    assert not succeeded(given_back[:10])
    assert holding not in runner.ended
    go.touch()
    assert succeeded(runner.until([holding, *runner.run(*[("nothing_async", {})] * 20)]))


def test_what_is_taken_back_is_told_and_never_run(drive: Drive, tmp_path: Path) -> None:
    """At any moment, with both kinds of tasks: each job is either executed or put back, once."""
    runner, notes, chance = drive(5), tmp_path / "notes", random.Random(7)
    notes.touch()
    ids: list[int] = []
    for _ in range(60):
        calls: list[Call] = [
            (chance.choice(["note", "note_async"]), {"path": str(notes)}) for _ in range(chance.randrange(1, 60))
        ]
        ids += runner.run(*calls)
        if chance.random() < 0.5:
            runner.hear()
        runner.table.revoked = chance.choice([ids[-1], chance.choice(ids)])
    more = runner.run(("note", {"path": str(notes)}), ("note_async", {"path": str(notes)}))
    outcomes = runner.until([*ids, *more])
    ran = Counter(map(int, notes.read_text().split()))
    assert ran == Counter(outcome.id for outcome in outcomes if isinstance(outcome, Success))
    assert {outcome.ending for outcome in outcomes if isinstance(outcome, Failure)} == {Disposition.RELEASE}
    assert {ran[job] for job in more} == {1}
    assert runner.table.started() == []
    assert runner.table.newest >= more[0]


@pytest.mark.parametrize("wait", ["wait_for", "wait_on_loop"])
def test_a_timeout_and_a_cancellation_reach_their_job_only(drive: Drive, tmp_path: Path, wait: str) -> None:
    runner = drive(3)
    never: Call = (wait, {"path": str(tmp_path / "never")})
    (late,) = runner.run(never, timeout=0.2)
    (beside,) = runner.run((wait, {"path": str(tmp_path / "go")}))
    (outcome,) = runner.until([late])
    assert isinstance(outcome, Failure)
    assert (outcome.recorded, outcome.ending) == ("timeout", Disposition.RETRY)
    if wait == "wait_on_loop":
        (stopped,) = runner.run(never)
        assert succeeded(runner.until(runner.run(("nothing_async", {}))))
        runner.cancel([stopped])
        (outcome,) = runner.until([stopped])
        assert isinstance(outcome, Failure)
        assert (outcome.recorded, outcome.ending) == ("cancelled", Disposition.CANCEL)
    (tmp_path / "go").touch()
    assert succeeded(runner.until([beside]))


def test_no_coroutine_ends_the_runner_or_loses_a_slot(drive: Drive) -> None:
    runner = drive(4)
    (left,) = runner.until(runner.run(("leave_the_process", {})))
    assert isinstance(left, Failure)
    assert left.error_type == "SystemExit"
    for _ in range(20):
        ids = runner.run(("cancel_the_others", {}), *[("nothing_async", {})] * 10)
        for outcome in some(runner.until(ids)):
            assert isinstance(outcome, Success) or outcome.error_type == "asyncio.exceptions.CancelledError"
    assert succeeded(runner.until(runner.run(*[("nothing_async", {})] * 10)))


@pytest.mark.parametrize("concurrency", [1, 10])
def test_a_flood_of_both_kinds_is_told_once_each(drive: Drive, concurrency: int) -> None:
    runner, chance = drive(concurrency), random.Random(11)
    ids: list[int] = []
    for _ in range(100):
        ids += runner.run(
            *[(chance.choice(["nothing", "nothing_async"]), {}) for _ in range(chance.choice([1, 2, 50, 300]))]
        )
    assert succeeded(runner.until(ids))
    assert runner.table.started() == []
