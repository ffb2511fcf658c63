"""The dispatcher's side of a runner: starting it, talking to it, knowing what it has, noticing its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from jobq.worker import frames, stacks
from jobq.worker.frames import CancelJobs, FromRunner, Job, Recall, Run, ToRunner
from jobq.worker.slots import SlotTable, Started
from jobq.worker.spec import Spec

logger = logging.getLogger("jobq.worker")

# A runner that has ended can have left its end of the socket to a process that it forked. Once it is dead, what it wrote
# lies in our buffers: when nothing has come for this long, nothing will.
LAST_WORDS = 0.2


@dataclass(slots=True, kw_only=True)
class Held:
    """A job that a runner has, and since when (loop time, seconds)."""

    job: Job
    since: float


class Child:
    """One runner process. `on_message` hears its frames, `on_exit` its end; both in the dispatcher's event loop."""

    def __init__(
        self,
        spec: Spec,
        *,
        on_message: Callable[[Child, FromRunner], None],
        on_exit: Callable[[Child, int], None],
    ) -> None:
        self.jobs: dict[int, Held] = {}
        self.tasks: list[str] | None = None
        """Names of the tasks that it can run; None until it is ready."""
        self.recalled = False
        self.killed_for: str | None = None
        """Why we killed it, when we did."""
        self.to_blame = False
        """Whether it was killed for something that its running jobs must have done."""
        self.born = time.monotonic()
        self._heard = 0
        self._spec = spec
        self._on_message = on_message
        self._on_exit = on_exit
        self._table = SlotTable.create(spec.concurrency)
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, once it has started."""
        return self._process.pid if self._process else None

    @property
    def ready(self) -> bool:
        """Whether it takes jobs."""
        return self.tasks is not None and self.killed_for is None

    async def start(self) -> None:
        """Start the process and listen to it."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, 1 << 20)
        spec = msgspec.structs.replace(self._spec, socket_fd=theirs.fileno(), slots_fd=self._table.fd)
        environment = {**os.environ, "JOBQ_RUNNER": msgspec.json.encode(spec).decode()}
        try:
            with stacks.held_back():
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "jobq.worker.runner",
                    pass_fds=(theirs.fileno(), self._table.fd),
                    stdin=asyncio.subprocess.DEVNULL,
                    env=environment,
                )
        finally:
            theirs.close()
        reader, self._writer = await asyncio.open_connection(sock=ours, limit=1 << 20)
        self._watch = asyncio.create_task(self._listen(reader), name=f"runner-{self._process.pid}")

    def begin(self, tasks: list[str], now: float) -> None:
        """It is ready to run `tasks`: what it was given before has waited for nothing until now."""
        self.tasks = tasks
        for held in self.jobs.values():
            held.since = now

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        assert self._process is not None
        hearing = asyncio.create_task(self._hear(reader))
        ending = asyncio.create_task(self._process.wait())
        await asyncio.wait({hearing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done() and not (await asyncio.wait({ending}, timeout=5))[0]:
            self.kill("it closed its socket and did not end")
        status = await ending
        # Every outcome that was sent is heard; only then judge the rest.
        heard, until = -1, time.monotonic() + LAST_WORDS * 25
        while not hearing.done() and heard != self._heard and time.monotonic() < until:
            heard = self._heard
            await asyncio.wait({hearing}, timeout=LAST_WORDS)
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
        self._on_exit(self, status)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = frames.length(await reader.readexactly(frames.LENGTH_SIZE))
                message = frames.decode_from_runner(await reader.readexactly(size))
                self._heard += 1
                self._on_message(self, message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception:
            # User code can write to any descriptor of its process, ours included.
            logger.exception("a runner sent what is no frame", extra={"pid": self.pid})
            self.to_blame = True
            self.kill("it sent what is no frame")

    def send(self, jobs: list[Job], now: float) -> None:
        """Give it `jobs`. They count as held from here on, whether it lives to read them or not."""
        for job in jobs:
            self.jobs[job.id] = Held(job=job, since=now)
        for batch in frames.batches(jobs, lambda job: len(job.args) + len(job.headers)):
            self._tell(Run(batch))

    def recall(self) -> None:
        """Ask for the jobs that it has not started."""
        self.recalled = True
        self._tell(Recall())

    def cancel(self, ids: list[int], *, stopping: bool = False) -> None:
        """Ask that running jobs stop."""
        self._tell(CancelJobs(ids, stopping))

    def _tell(self, message: ToRunner) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frames.encode(message))

    def take(self, job_id: int, claims: int) -> Job | None:
        """Return the held job that has ended, and hold it no longer; None for one that is not held (any more)."""
        held = self.jobs.get(job_id)
        if held is None or held.job.claims != claims:
            return None
        del self.jobs[job_id]
        return held.job

    def vouch(self, until: float) -> None:
        """Let it live until this time of time.monotonic()."""
        self._table.lease_ends = until

    def started(self) -> list[Started]:
        """Return what it is executing, as its slot table says."""
        return self._table.started()

    def kill(self, reason: str) -> None:
        """End it at once. Its jobs are judged when its end is noticed."""
        self.killed_for = self.killed_for or reason
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)

    def dump_stacks(self) -> None:
        """Have it print what it is doing to standard error."""
        if self._process is not None and self._process.returncode is None:
            stacks.say(f"=== jobq dispatcher {os.getpid()}: runner {self.pid} is asked for its stacks")
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGQUIT)

    async def closed(self) -> None:
        """Wait until the process has ended and `on_exit` has been called; release what it used."""
        if self._watch is not None:
            await self._watch
        self._table.close()

    async def stop(self) -> None:
        """Close the socket, which ends an idle runner, and wait for its end."""
        if self._writer is not None:
            self._writer.close()
        if self._watch is not None:
            try:
                await asyncio.wait_for(asyncio.shield(self._watch), 5)
            except TimeoutError:
                self.kill("it did not end with its socket")
        await self.closed()
