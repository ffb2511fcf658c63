"""The dispatcher's end of a runner's socket: frames however they are cut, and what is no frame."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest

from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import (
    AlreadyCommitted,
    CancelJobs,
    Failure,
    FromRunner,
    Job,
    Outcomes,
    Progress,
    Run,
    Success,
)
from jobq._worker.ipc.transport import FrameTransport


def test_frames_are_heard_however_they_are_cut() -> None:
    chance = random.Random(5)
    said: list[FromRunner] = [
        Progress(number, 1, 0, 2, None)
        if chance.random() < 0.5
        else Outcomes([Success(number, 1, 0, b"x" * chance.choice([0, 10, 5000]), 0.1)], [])
        for number in range(300)
    ]
    stream = b"".join(map(messages.encode, said))
    for longest in (1, 3, 100, 10_000, len(stream)):
        heard: list[FromRunner] = []
        line = FrameTransport(heard.append, lambda error: pytest.fail(repr(error)))
        at = 0
        while at < len(stream):
            size = chance.randint(1, longest)
            line.data_received(stream[at : at + size])
            at += size
        assert heard == said
        assert line.heard == len(stream)
        assert not line.over.is_set()


def _listener(fault: str) -> Callable[[FromRunner], None]:
    def hear(_: FromRunner) -> None:
        raise RuntimeError(fault)

    return hear


@pytest.mark.parametrize(
    ("stream", "listener"),
    [
        (b"\xff\xff\xff\xff", None),
        (b"\0\0\0\1\xc1", None),
        (messages.encode(Progress(1, 1, 0, 1, None)), _listener("the listener's own fault")),
    ],
)
def test_nothing_is_heard_after_a_fault(stream: bytes, listener: Callable[[FromRunner], None] | None) -> None:
    heard: list[FromRunner] = []
    faults: list[Exception] = []
    line = FrameTransport(listener or heard.append, faults.append)
    line.data_received(stream)
    line.data_received(messages.encode(Progress(1, 1, 0, 1, None)))
    assert (len(faults), heard, line.over.is_set()) == (1, [], True)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[FrameTransport, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(lambda: FrameTransport(lambda _: None, lambda _: None), sock=ours)
    yield line, theirs
    line.close()
    theirs.close()


async def test_what_is_told_after_the_runner_has_gone_is_no_error(pair: tuple[FrameTransport, socket.socket]) -> None:
    line, theirs = pair
    line.tell(CancelJobs([1]))
    assert messages.decode_to_runner(theirs.recv(1000)[messages.LENGTH_SIZE :]) == CancelJobs([1])
    theirs.close()
    async with asyncio.timeout(10):
        await line.over.wait()
    for _ in range(3):
        line.tell(Run(1, uuid4(), [Job(1, 1, "task", "default", b"{}", 1, 1, 0, None, b"{}")]))
        await asyncio.sleep(0)


def test_a_batch_is_cut_by_bytes_and_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "BATCH_BYTES", 10)
    assert messages.batches([], int) == []
    assert messages.batches([5, 5], int) == [[5, 5]]
    assert messages.batches([5, 5, 1, 30, 2, 8, 1], int) == [[5, 5], [1], [30], [2, 8], [1]]
    setback = Failure(1, 1, 0, messages.Disposition.FAIL, message="m" * 20)
    outcomes: list[Success | Failure | AlreadyCommitted] = [
        setback,
        Success(2, 1, 0, b"", 0.0),
        AlreadyCommitted(3, 1, 0, accepted=True),
    ]
    assert messages.batches(outcomes, messages.outcome_size) == [outcomes[:1], outcomes[1:]]
