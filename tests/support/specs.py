"""What a dispatcher tells a runner at its start, for tests that make a `Child` themselves."""

from __future__ import annotations

from jobq.config import Settings
from jobq.worker.spec import Spec


def spec(concurrency: int = 1) -> Spec:
    return Spec(
        app="tests.support.apps:q",
        socket_fd=-1,
        slots_fd=-1,
        concurrency=concurrency,
        max_result_bytes=1000,
        max_error_bytes=1000,
        settings=Settings(),
        log_format="text",
        log_level="INFO",
    )
