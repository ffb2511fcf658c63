"""What a runner has to tell its dispatcher, as many outcomes a frame as there are.

What ends a job sends what there is, unless the next one follows at once: then outcomes collect for at most a millisecond.
So that they never wait for what the next job waits for, someone else is always on the way to send them: a slot's thread that
was called (`Stock.called`), or else the writer, a thread that has nothing else to do. It also sends what the socket does
not take at once: no slot and no event loop waits for the dispatcher.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from jobq.worker import frames
from jobq.worker.frames import Job, Outcomes, Progress, Recorded, Setback, Success, outcome_size

Outcome = Success | Setback | Recorded

# Most outcomes in one frame.
_FRAME_OUTCOMES = 500
# Seconds from the start of a job that an outcome may wait for company.
_COLLECT = 0.001


class Outbox:
    """Sends to `connection`. `lost` is called when it cannot be written to, and does not return."""

    def __init__(self, connection: socket.socket, lost: Callable[[], object]) -> None:
        self._connection = connection
        self._lost = lost
        self._outcomes: deque[Outcome] = deque()
        self._since = 0.0
        """When the job of the first outcome here began, in time.monotonic() seconds."""
        self._progress: dict[int, Progress] = {}
        """The last word of each job, not sent yet: said faster than it is sent, it is replaced."""
        self._progress_lock = threading.Lock()
        self._lock = threading.Lock()
        """Held by the sender."""
        self._rest = b""
        """The end of what was sent before and not taken by the socket."""
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._called = False
        """Whether the writer is on its way."""

    def send(self, message: frames.FromRunner) -> None:
        """Send a message, waiting until the socket takes it."""
        with self._lock:
            self._write(frames.encode(message), wait=True)

    def put(self, outcome: Outcome, began: float, now: float, *, last: bool) -> bool:
        """Add the outcome of an execution that began and ended at these times of time.monotonic().

        `last`: nothing follows it at once. Returns whether it still lies here: unless someone is on the way who will flush,
        `call` the writer.
        """
        outcomes = self._outcomes
        if not outcomes:
            self._since = began
        outcomes.append(outcome)
        if last or now - self._since >= _COLLECT or len(outcomes) >= _FRAME_OUTCOMES:
            self.flush()
            return False
        return True

    def progress(self, job: Job, done: int, total: int | None) -> None:
        """Say how far a job is; its last word counts."""
        # One step with the sender's taking: else a word put in just after it would call no one, nor would any word after it.
        with self._progress_lock:
            first = not self._progress
            self._progress[job.id] = Progress(job.id, job.claims, job.started, done, total)
        if first:
            self.call()

    def flush(self) -> None:
        """Send what there is without waiting for the socket, or for another who is sending: the writer does that."""
        if not self._outcomes and not self._progress:
            return
        if not self._lock.acquire(blocking=False):
            # The holder may have looked before our outcome was there.
            self.call()
            return
        try:
            self._send_all(wait=False)
        finally:
            self._lock.release()

    def serve(self) -> None:
        """The writer."""
        while True:
            self._calls.get()
            # First this: what is put from here on calls again.
            self._called = False
            with self._lock:
                self._send_all(wait=True)

    def call(self) -> None:
        """Have the writer send what there is."""
        if not self._called:
            self._called = True
            self._calls.put(None)

    def _send_all(self, *, wait: bool) -> None:
        if self._rest:
            self._write(b"", wait=wait)
        # What the socket does not take waits here, not in `_rest`: that is at most a frame.
        while not self._rest and (self._progress or self._outcomes):
            if self._progress:
                with self._progress_lock:
                    said, self._progress = self._progress, {}
                self._write(b"".join(map(frames.encode, said.values())), wait=wait)
                continue
            pending = [self._outcomes.popleft() for _ in range(min(len(self._outcomes), _FRAME_OUTCOMES))]
            self._write(b"".join(map(_frame, frames.batches(pending, outcome_size))), wait=wait)

    def _write(self, data: bytes, *, wait: bool) -> None:
        data = self._rest + data if self._rest else data
        try:
            if wait:
                self._rest = b""
                self._connection.sendall(data)
                return
            sent = self._connection.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        self._rest = data[sent:]
        if self._rest:
            self.call()


def _frame(batch: list[Outcome]) -> bytes:
    successes = [outcome for outcome in batch if type(outcome) is Success]
    if len(successes) == len(batch):
        return frames.encode(Outcomes(successes, []))
    setbacks = [outcome for outcome in batch if isinstance(outcome, Setback)]
    recorded = [outcome for outcome in batch if isinstance(outcome, Recorded)]
    return frames.encode(Outcomes(successes, setbacks, recorded))
