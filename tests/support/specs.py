"""What a dispatcher tells a runner at its start, for tests that make a `RunnerProcess` themselves."""

from __future__ import annotations

from jobq._worker.ipc.runner_config import RunnerConfig
from jobq.settings import Settings


def spec(concurrency: int = 1) -> RunnerConfig:
    return RunnerConfig(
        app="tests.apps.plain:q",
        socket_fd=-1,
        slots_fd=-1,
        concurrency=concurrency,
        max_result_bytes=1000,
        max_error_bytes=1000,
        settings=Settings(),
        log_format="text",
        log_level="INFO",
    )
