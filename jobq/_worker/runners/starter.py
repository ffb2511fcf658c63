"""Starts runners as the worker's options say."""

from __future__ import annotations

from collections.abc import Callable

from jobq._worker.ipc.messages import FromRunner
from jobq._worker.ipc.runner_config import RunnerConfig
from jobq._worker.options import WorkerOptions
from jobq._worker.runners.channel import Launch
from jobq._worker.runners.process import RunnerProcess
from jobq._worker.runners.worker_start import WorkerStart


class RunnerStarter:
    """Starts runners with `launch`. The runners call `on_message` and `on_exit`."""

    def __init__(
        self,
        options: WorkerOptions,
        worker_start: WorkerStart,
        *,
        on_message: Callable[[RunnerProcess, FromRunner], None],
        on_exit: Callable[[RunnerProcess, int], None],
        launch: Launch,
    ) -> None:
        self._launch = launch
        self._on_message = on_message
        self._on_exit = on_exit
        self._concurrency = options.concurrency
        self._options = options
        self._worker_start = worker_start

    def start_runner(self) -> RunnerProcess:
        """Begin to start a runner for many jobs at a time, and return it.

        Jobs may be sent to it at once. Raises OSError.
        """
        return self._start(self._concurrency)

    def start_isolated(self) -> RunnerProcess:
        """Begin to start a runner for one job at a time, and return it.

        Jobs may be sent to it at once. Raises OSError.
        """
        return self._start(1)

    def _start(self, concurrency: int) -> RunnerProcess:
        options = self._options
        config = RunnerConfig(
            app=options.app,
            socket_fd=-1,
            slots_fd=-1,
            concurrency=concurrency,
            max_result_bytes=options.settings.max_result_bytes,
            max_error_bytes=options.max_error_bytes,
            settings=options.settings,
            log_format=options.log_format,
            log_level=options.log_level,
            starts_worker=self._worker_start.is_due,
        )
        runner = RunnerProcess(config, on_message=self._on_message, on_exit=self._on_exit, launch=self._launch)
        self._worker_start.started(runner)
        runner.open()
        return runner
