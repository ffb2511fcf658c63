"""The steps of a runner's durable jobs, written by one thread on a connection of its own.

What the slots and the event loop ask for while a statement is under way goes into the next one. So
a step costs a share of a commit, as an acknowledgement does.

A job whose step the server refuses, or keeps waiting, does not hold up the others: their requests
are then carried out one by one, and those that wait for a lock are tried again later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import psycopg

from jobq._worker.database_errors import ErrorKind, classify
from jobq._worker.runner.step_connection import StepConnection
from jobq.errors import NotDurable
from jobq.settings import Settings
from jobq.steps import rows
from jobq.steps.store import (
    Holder,
    LoadSteps,
    NewStep,
    RestartJob,
    RunAgain,
    SetStepsAside,
    StepRequest,
    TakeSignal,
    WriteSteps,
)
from jobq.steps.suspension import ExecutionLost

logger = logging.getLogger("jobq.runner")

# Most requests of one round.
_MOST = 500
# Seconds between tries while there is no connection.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
# Most requests of one round that are found to wait for a lock: the rest of the round is put off
# with them, because then it is a whole table that is locked.
_MOST_WAITS = 3


@dataclass(slots=True, eq=False)
class _Asked:
    holder: Holder
    request: StepRequest
    reply: Future[Any]
    pause: float = 0.0
    """Seconds before the present try; 0 at the first one."""
    due: float = 0.0


class StepThread:
    """The `StepStore` of a runner. The thread and its connection begin with the first request.

    While the database is away or read-only, requests wait: the worker's lease ends the runner, if
    that takes long.
    """

    def __init__(self, settings: Settings) -> None:
        self._queue: SimpleQueue[_Asked] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._connection = StepConnection(settings)
        self._put_off: list[_Asked] = []
        self._waits = 0
        """How many requests of this round were found to wait for a lock."""

    def submit(self, holder: Holder, request: StepRequest) -> Future[Any]:
        """Carry out `request` in the thread. Raises NotDurable in a process that a task has forked."""
        if os.getpid() != self._process:
            raise NotDurable(
                f"step of job {holder.job_id}: this process was forked by the task: call steps in the task's own process"
            )
        reply: Future[Any] = Future()
        self._queue.put(_Asked(holder, request, reply))
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._serve, name="jobq-steps", daemon=True)
                    self._thread.start()
        return reply

    def _serve(self) -> None:
        while True:
            asked = self._next()
            try:
                self._answer(asked)
            except BaseException as error:
                logger.exception("the steps of durable jobs cannot be stored")
                for each in asked:
                    if not each.reply.done() and each not in self._put_off:
                        each.reply.set_exception(error)

    def _next(self) -> list[_Asked]:
        """Return what is to be done now, or wait for it."""
        now = time.monotonic()
        found = [each for each in self._put_off if each.due <= now]
        self._put_off = [each for each in self._put_off if each.due > now]
        fresh: list[_Asked] = []
        try:
            if not found:
                until = min((each.due for each in self._put_off), default=None)
                fresh.append(self._queue.get(timeout=None if until is None else until - now))
            while len(fresh) < _MOST:
                fresh.append(self._queue.get_nowait())
        except Empty:
            pass
        # A coroutine that was cancelled does not wait any more, and its job is put back.
        return [each for each in fresh if each.reply.set_running_or_notify_cancel()] + found

    def _answer(self, asked: Sequence[_Asked]) -> None:
        self._waits = 0
        fresh = [each for each in asked if not each.pause]
        loads = [each for each in fresh if isinstance(each.request, LoadSteps)]
        writes = [each for each in fresh if isinstance(each.request, WriteSteps)]
        for group in (loads, writes):
            if group:
                self._together(group)
        for each in asked:
            if each.pause or not isinstance(each.request, (LoadSteps, WriteSteps)):
                self._together([each])

    def _together(self, asked: Sequence[_Asked]) -> None:
        """Answer requests of one kind by one statement; if the server refuses it, one by one."""
        if self._waits >= _MOST_WAITS:
            for each in asked:
                self._postpone(each)
            return
        do = _ANSWERS[type(asked[0].request)]
        try:
            self._persist(lambda run: do(run, asked))
        except Exception as error:
            if len(asked) > 1:
                for each in asked:
                    self._together([each])
            elif isinstance(error, psycopg.Error) and classify(error) is ErrorKind.TRANSIENT:
                # A lock, a deadlock, a statement that took too long, a full disk.
                self._waits += 1
                self._postpone(asked[0])
                told = {"job": asked[0].holder.job_id, "error": str(error).strip()}
                logger.warning("a step of a durable job waits for the database", extra=told)
            else:
                asked[0].reply.set_exception(error)

    def _postpone(self, asked: _Asked) -> None:
        asked.pause = min(max(asked.pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        asked.due = time.monotonic() + asked.pause
        self._put_off.append(asked)

    def _persist(self, do: Callable[[_Run], None]) -> None:
        """Call `do` until the connection lives through it.

        Raises what `do` raises for another reason: psycopg.Error if the server refuses.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                do(self._connection.fetch)
            except (psycopg.Error, OSError) as error:
                if not self._connection.is_lost(error):
                    raise
                self._connection.drop()
                logger.warning("no connection for the steps of durable jobs", extra={"error": str(error).strip()})
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return


_Run = Callable[[str, dict[str, Any]], list[tuple[Any, ...]]]


def _load(run: _Run, asked: Sequence[_Asked]) -> None:
    found = rows.loaded(run("steps_load", {"ids": [each.holder.job_id for each in asked]}))
    for each in asked:
        each.reply.set_result(found.get(each.holder.job_id, []))


def _write(run: _Run, asked: Sequence[_Asked]) -> None:
    steps: list[tuple[Holder, NewStep]] = []
    places: list[range] = []
    for each in asked:
        assert isinstance(each.request, WriteSteps)
        begin = len(steps) + 1
        steps += [(each.holder, step) for step in each.request.steps]
        places.append(range(begin, len(steps) + 1))
    accepted = {place for (place,) in run("steps_write", rows.write_parameters(steps))}
    for each, mine in zip(asked, places, strict=True):
        if accepted.issuperset(mine):
            each.reply.set_result(None)
        else:
            each.reply.set_exception(_lost(each.holder))


def _take(run: _Run, asked: Sequence[_Asked]) -> None:
    [each] = asked
    request = each.request
    assert isinstance(request, TakeSignal)
    values = rows.wait_parameters(each.holder, request.key, request.place, request.timeout)
    # The second time it sees what another request for the same step, on a lost connection, has done.
    if found := run("step_wait", values) or run("step_wait", values):
        each.reply.set_result(rows.waited(request.key, request.place, found[0]))
    else:
        each.reply.set_exception(_lost(each.holder))


def _forget(run: _Run, asked: Sequence[_Asked]) -> None:
    [each] = asked
    values = rows.holder_parameters(each.holder)
    if isinstance(each.request, RestartJob):
        found = run("step_restart", {**values, "args": each.request.args})
    else:
        found = run("steps_undone", values)
    if found:
        each.reply.set_result(None)
    else:
        each.reply.set_exception(_lost(each.holder))


def _run_again(run: _Run, asked: Sequence[_Asked]) -> None:
    [each] = asked
    assert isinstance(each.request, RunAgain)
    run("steps_run_again", rows.run_again_parameters(each.holder, each.request.keys, each.request.at_once))
    each.reply.set_result(None)


_ANSWERS: dict[type, Callable[[_Run, Sequence[_Asked]], None]] = {
    LoadSteps: _load,
    WriteSteps: _write,
    TakeSignal: _take,
    SetStepsAside: _forget,
    RestartJob: _forget,
    RunAgain: _run_again,
}


def _lost(holder: Holder) -> ExecutionLost:
    return ExecutionLost(
        f"job {holder.job_id} does not belong to this execution any more, or an earlier one has stored the step"
    )
