"""The wall clock of the workers' host, or of the server's, is ahead: intervals are measured on a clock that is not."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobq import operations
from tests.chaos.scene.harness import Arena
from tests.chaos.scene.history import Limits
from tests.support import programs
from tests.support.waiting import wait_until

# Its clocks are compiled.
pytestmark = pytest.mark.needs("cc")

# Preloaded: the wall clock plus the seconds that a file says, looked up at each call, so that it can jump at any time.
# Not libfaketime: under it Python's time.sleep, which sleeps until a time of the monotonic clock, fails with EINVAL.
_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *ahead;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    if (page != MAP_FAILED) ahead = page;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = real(clock, now);
    if (!status && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *ahead;
    return status;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    int status = clock_gettime(CLOCK_REALTIME, &precise);
    if (!status) { now->tv_sec = precise.tv_sec; now->tv_usec = precise.tv_nsec / 1000; }
    return status;
}
time_t time(time_t *place) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (place) *place = precise.tv_sec;
    return precise.tv_sec;
}
"""


class Clock:
    """A wall clock that is some seconds ahead of the true one."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set(0)
        source, library = directory / "clock.c", directory / "clock.so"
        source.write_text(_SHIM)
        compiler = programs.find("cc")
        assert compiler is not None
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
        self.env = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Jump. In place: the processes have the file mapped."""
        with open(self._file, "r+b" if self._file.exists() else "wb") as file:
            file.write(ctypes.c_long(seconds))


@pytest.fixture
def clock(arena: Arena) -> Clock:
    return Clock(arena.directory)


def test_the_clock_jumps_to_and_fro(arena: Arena, clock: Clock) -> None:
    """By an hour, again and again, on one of two hosts: no worker is taken for dead, nothing comes early, late or twice."""
    jumping = arena.start_worker(env=clock.env)
    arena.start_worker()
    arena.produce(arena.size(150), 30 if arena.long else 5)

    def jump() -> None:
        seconds = arena.random.choice((-3600, 0, 3600))
        arena.fault("clock", ahead=seconds)
        clock.set(seconds)

    arena.torment(jump, every=(0.3, 0.8))
    states = arena.finish(limits=Limits(blameless=True))
    assert set(states) == {"succeeded"}
    assert "the lease is lost" not in jumping.log


@pytest.fixture
def server_clock(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock of the arena's server, which is started again for it. In a directory that its user can read."""
    directory = Path(tempfile.mkdtemp(prefix="jobq-test-"))
    directory.chmod(0o755)
    made = Clock(directory)
    with monkeypatch.context() as patch:
        for name, value in made.env.items():
            patch.setenv(name, value)
        arena.server.restart()
    yield made
    shutil.rmtree(directory)


def test_the_servers_clock_was_ahead(arena: Arena, server_clock: Clock) -> None:
    """By an hour, and by nine days, for a moment each. Once it is right, rates admit jobs as before and days are made."""
    with arena.connect() as connection:
        operations.configure(connection, "jobq", "rated", rate="20/s", burst=5, actor="chaos")
        arena.start_worker("--keep-succeeded-days", "90")
        rated = arena.place("rated", [["ok"]] * (400 if arena.long else 100), queue="rated")
        for ahead in (3600, 9 * 86400):
            begun = len(arena.started(rated))
            wait_until(lambda begun=begun: len(arena.started(rated)) > begun + 5, what="some starts")  # type: ignore[misc]
            arena.fault("server's clock", ahead=ahead)
            server_clock.set(ahead)
            begun = len(arena.started(rated))
            wait_until(lambda begun=begun: len(arena.started(rated)) > begun + 5, what="starts ahead")  # type: ignore[misc]
            (row,) = connection.execute("SELECT clock_timestamp() AS at").fetchall()
            moment = row["at"]
            assert moment.timestamp() > time.time() + ahead - 60, "the server's clock did not jump"
            server_clock.set(0)
            arena.fault("server's clock", ahead=0)
        arena.finish(timeout=45, limits=Limits(blameless=True), clocks=False)
        # The day that was ahead has rows already.
        connection.execute("SELECT count(*) FROM jobq.make_partitions(10)")
        day = moment.strftime("%Y%m%d")
        made = connection.execute("SELECT to_regclass(%s)", (f"jobq.job_history_succeeded_{day}",)).fetchone()
        assert made is not None
        assert made["to_regclass"], f"there is no partition for {day}"
