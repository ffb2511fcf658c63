"""What a dispatcher tells a runner at its start."""

from __future__ import annotations

import msgspec

from jobq.config import Settings
from jobq.logs import LogFormat

# Seconds that a runner takes at most to end in good order, and after which its dispatcher kills it.
LEAVE_WITHIN = 5.0
KILL_AFTER = LEAVE_WITHIN + 2.0


class Spec(msgspec.Struct, kw_only=True, frozen=True):
    """In the environment variable JOBQ_RUNNER, as JSON."""

    app: str
    socket_fd: int
    slots_fd: int
    alive_fd: int = -1
    """The read end of a pipe whose other end closes with the dispatcher."""
    stacks_fd: int = -1
    """The write end of a pipe to the dispatcher, for what SIGQUIT asks for; -1 for none."""
    concurrency: int
    max_result_bytes: int
    max_error_bytes: int
    settings: Settings
    """Where the jobs are: the worker's own, for the transactions of transactional tasks."""
    log_format: LogFormat
    log_level: str
