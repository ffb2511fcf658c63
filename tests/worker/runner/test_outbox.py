"""Outcomes on their way to the dispatcher: which are sent at once, and a socket that takes nothing."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import LENGTH_SIZE, FromRunner, Job, Outcomes, Progress, Success
from jobq._worker.runner.outbox import Outbox
from tests.support.waiting import wait_until

JOB = Job(1, 1, "task", "default", b"{}", 1, 1, 0, None, b"{}")


@pytest.fixture
def ends() -> Iterator[tuple[Outbox, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(20)
    yield Outbox(ours, lambda: os._exit(1)), theirs
    ours.close()
    theirs.close()


def outcome(number: int, size: int = 4) -> Success:
    return Success(number, 1, 0, b"n" * size, 0.0)


def hear(end: socket.socket) -> list[FromRunner]:
    """Return what has come so far."""
    data, found = end.recv(1 << 20), []
    while data:
        size = LENGTH_SIZE + messages.length(data[:LENGTH_SIZE])
        found.append(messages.decode_from_runner(data[LENGTH_SIZE:size]))
        data = data[size:]
    return found


def test_outcomes_collect_only_while_jobs_follow(ends: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = ends
    assert outbox.put(outcome(1), 10.0, 10.0001, last=False)
    assert outbox.put(outcome(2), 10.0001, 10.0002, last=False)
    assert not outbox.put(outcome(3), 10.0002, 10.0003, last=True)
    assert hear(theirs) == [Outcomes([outcome(1), outcome(2), outcome(3)], [])]
    # One that took long, and one that has waited long.
    assert not outbox.put(outcome(4), 20.0, 20.001, last=False)
    assert hear(theirs) == [Outcomes([outcome(4)], [])]
    assert outbox.put(outcome(5), 30.0, 30.0001, last=False)
    assert not outbox.put(outcome(6), 30.0009, 30.0011, last=False)
    assert hear(theirs) == [Outcomes([outcome(5), outcome(6)], [])]


def test_progress_goes_before_the_outcome(ends: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = ends
    outbox.progress(JOB, 1, None)
    outbox.progress(JOB, 2, 9)
    outbox.put(outcome(1), 10.0, 10.0001, last=True)
    assert hear(theirs) == [Progress(1, 1, 0, 2, 9), Outcomes([outcome(1)], [])]


def test_a_socket_that_takes_nothing_holds_up_nobody(ends: tuple[Outbox, socket.socket]) -> None:
    """What it does not take is the writer's to send, in order and whole."""
    outbox, theirs = ends
    threading.Thread(target=outbox.serve, daemon=True).start()
    sent = [outcome(number, 100_000) for number in range(100)]
    for number, each in enumerate(sent):
        # No one reads; should this wait, the test hangs.
        outbox.put(each, number, number + 1, last=True)
    stream = theirs.makefile("rb")
    heard: list[Success] = []
    while len(heard) < len(sent):
        message = messages.decode_from_runner(stream.read(messages.length(stream.read(LENGTH_SIZE))))
        assert isinstance(message, Outcomes)
        heard += message.successes
    assert heard == sent
    stream.close()


def test_none_is_left_behind_by_threads_that_end_jobs_at_once(ends: tuple[Outbox, socket.socket]) -> None:
    outbox, theirs = ends
    threading.Thread(target=outbox.serve, daemon=True).start()
    heard: list[Success] = []

    def end_jobs(first: int) -> None:
        for number in range(first, first + 5000):
            if outbox.put(outcome(number), number, number + 0.0001, last=number % 7 == 0):
                outbox.call()

    def listen() -> None:
        stream = theirs.makefile("rb")
        while len(heard) < 20_000:
            message = messages.decode_from_runner(stream.read(messages.length(stream.read(LENGTH_SIZE))))
            assert isinstance(message, Outcomes)
            heard.extend(message.successes)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    for first in range(0, 20_000, 5000):
        threading.Thread(target=end_jobs, args=(first,), daemon=True).start()
    wait_until(lambda: len(heard) == 20_000, what="every outcome")
    assert sorted(success.id for success in heard) == list(range(20_000))
