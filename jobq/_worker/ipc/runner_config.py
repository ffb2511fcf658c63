"""The configuration that a dispatcher passes to a new runner."""

from __future__ import annotations

import msgspec

from jobq._core.logs.formats import LogFormat
from jobq.settings import Settings

# A runner ends in good order within this many seconds. After the second number of seconds, its
# dispatcher kills it.
LEAVE_WITHIN = 10.0
KILL_AFTER = LEAVE_WITHIN + 2.0


class RunnerConfig(msgspec.Struct, kw_only=True, frozen=True):
    """The configuration of a runner, passed in the environment variable JOBQ_RUNNER as JSON."""

    app: str
    socket_fd: int
    slots_fd: int
    alive_fd: int = -1
    """Read end of a pipe whose other end closes with the dispatcher."""
    stacks_fd: int = -1
    """Write end of a pipe to the dispatcher for the stacks that SIGQUIT requests; -1 for none."""
    concurrency: int
    max_result_bytes: int
    max_error_bytes: int
    settings: Settings
    """The worker's own settings, for the transactions of transactional tasks."""
    log_format: LogFormat
    log_level: str
    starts_worker: bool = False
    """Whether this runner calls the application's functions for the start of the worker."""
