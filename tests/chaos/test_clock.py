"""The wall clock of the workers' host jumps by an hour: intervals are measured on a clock that does not."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chaos.harness import Arena
from tests.chaos.history import Limits

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
        compiler = shutil.which("cc") or pytest.skip("no C compiler (cc) to make a clock with")
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
    """By an hour, again and again, on one of two hosts: nobody is taken for dead, nothing comes early, late or twice."""
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
