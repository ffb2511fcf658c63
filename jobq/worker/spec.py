"""What a dispatcher tells a runner at its start."""

from __future__ import annotations

import msgspec

from jobq.config import Settings
from jobq.logs import LogFormat


class Spec(msgspec.Struct, kw_only=True, frozen=True):
    """In the environment variable JOBQ_RUNNER, as JSON."""

    app: str
    socket_fd: int
    slots_fd: int
    concurrency: int
    max_result_bytes: int
    max_error_bytes: int
    settings: Settings
    """Where the jobs are: the worker's own, for the transactions of transactional tasks."""
    log_format: LogFormat
    log_level: str
