"""The messages from a runner to its dispatcher, with as many outcomes per frame as are available.

The end of a job sends all waiting outcomes, unless the next job follows at once. In that case
outcomes collect for at most a millisecond. They must never wait for the same thing as the next job.
So another thread is always on its way to send them: a slot's thread that was called
(`LocalQueue.called`), or the writer, which has no other work. The writer also sends the data that
the socket does not accept at once. So no slot and no event loop waits for the dispatcher.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from jobq._worker.ipc import messages
from jobq._worker.ipc.messages import AlreadyCommitted, Failure, Job, Outcomes, Progress, Success, outcome_size

Outcome = Success | Failure | AlreadyCommitted

# Maximum number of outcomes in one frame.
_FRAME_OUTCOMES = 500
# Maximum seconds, from the start of its job, that an outcome may wait for others.
_COLLECT = 0.001


class Outbox:
    """Sends messages to `connection`.

    `lost` is called if the connection cannot be written to, and does not return.
    """

    def __init__(self, connection: socket.socket, lost: Callable[[], object]) -> None:
        self._connection = connection
        self._lost = lost
        self._outcomes: deque[Outcome] = deque()
        self._since = 0.0
        """When the job of the first waiting outcome began, in time.monotonic() seconds."""
        self._progress: dict[int, Progress] = {}
        """The newest unsent progress of each job.

        If a job reports faster than messages are sent, it is replaced.
        """
        self._progress_lock = threading.Lock()
        self._lock = threading.Lock()
        """Held by the thread that sends."""
        self._rest = b""
        """The remaining bytes of an earlier message that the socket did not accept."""
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._called = False
        """Whether the writer was called and is on its way."""

    def send(self, message: messages.FromRunner) -> None:
        """Send a message; wait until the socket accepts it."""
        with self._lock:
            self._write(messages.encode(message), wait=True)

    def put(self, outcome: Outcome, began: float, now: float, *, last: bool) -> bool:
        """Add the outcome of an execution.

        Args:
            outcome: The outcome.
            began: When the execution began, in time.monotonic() seconds.
            now: When it ended, in time.monotonic() seconds.
            last: Whether no job follows at once.

        Returns:
            Whether the outcome is still unsent. Then `call` the writer, unless a thread that will
                flush is on its way.
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
        """Report the progress of a job. Only its newest report counts."""
        # The lock makes this one step with the sender's read. Otherwise a report added just after
        # that read would call no thread, nor would any later report.
        with self._progress_lock:
            first = not self._progress
            self._progress[job.id] = Progress(job.id, job.claims, job.started, done, total)
        if first:
            self.call()

    def flush(self) -> None:
        """Send all waiting messages without waiting.

        If the socket is full or another thread is sending, the writer sends them.
        """
        if not self._outcomes and not self._progress:
            return
        if not self._lock.acquire(blocking=False):
            # The lock's holder may have looked before our outcome was added.
            self.call()
            return
        try:
            self._send_all(wait=False)
        finally:
            self._lock.release()

    def serve(self) -> None:
        """Send messages whenever called, as the writer thread."""
        while True:
            self._calls.get()
            # Reset this first, so that messages added from now on call the writer again.
            self._called = False
            with self._lock:
                self._send_all(wait=True)

    def call(self) -> None:
        """Make the writer send all waiting messages."""
        if not self._called:
            self._called = True
            self._calls.put(None)

    def _send_all(self, *, wait: bool) -> None:
        if self._rest:
            self._write(b"", wait=wait)
        # Messages that the socket does not accept wait here, not in `_rest`, which holds at most
        # one frame.
        while not self._rest and (self._progress or self._outcomes):
            if self._progress:
                with self._progress_lock:
                    said, self._progress = self._progress, {}
                self._write(b"".join(map(messages.encode, said.values())), wait=wait)
                continue
            pending = [self._outcomes.popleft() for _ in range(min(len(self._outcomes), _FRAME_OUTCOMES))]
            self._write(b"".join(map(_frame, messages.batches(pending, outcome_size))), wait=wait)

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
        return messages.encode(Outcomes(successes, []))
    setbacks = [outcome for outcome in batch if isinstance(outcome, Failure)]
    recorded = [outcome for outcome in batch if isinstance(outcome, AlreadyCommitted)]
    return messages.encode(Outcomes(successes, setbacks, recorded))
