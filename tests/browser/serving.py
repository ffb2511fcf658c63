"""The page as a process of its own on a free port, with the options a test wants.

As a program: ``python -m tests.browser.serving URL '{"refresh_seconds": 1}'``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until
from tests.support.workers import ROOT


class PageProcess:
    """`jobq.web.create_app` with `options`, served by `jobq.web.serve` on loopback; `url` is where, without a slash."""

    def __init__(self, database_url: str, log: Path, **options: Any) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.browser.serving", database_url, json.dumps(options)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        said = wait_until(self._said, timeout=60, what="the page to be served")
        assert said is not None
        self.url: str = said

    def _said(self) -> str | None:
        text = self._log.read_text(errors="replace")
        assert self.process.poll() is None, f"the page's server has ended:\n{text}"
        return next((line[4:].rstrip("/") for line in text.splitlines() if line.startswith("at: ")), None)

    @property
    def log(self) -> str:
        """Everything it has printed so far."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _main() -> None:
    from jobq.web import create_app, serve

    url, options = sys.argv[1], json.loads(sys.argv[2])
    app = create_app(database_url=url, **options)
    serve(app, "127.0.0.1", 0, ready=lambda address: print("at:", address, flush=True))


if __name__ == "__main__":
    _main()
