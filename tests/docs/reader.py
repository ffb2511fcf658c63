"""A reader that does what a document says: writes its files, types its commands, and compares the output."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.docs.blocks import Block
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
_DEV_URL = re.compile(r"export JOBQ_DATABASE_URL='([^']+)'")


class Reader:
    """Reads in `place`, an empty directory. Python that is no file runs here, with `names`; SQL by `execute`."""

    def __init__(self, place: Path, environment: dict[str, str], names: dict[str, Any] | None = None) -> None:
        self.place = place
        self.names = {"__name__": "document", **(names or {})}
        self.execute: Any = None
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JOBQ_")}
        programs = place / ".bin"
        programs.mkdir()
        for name, command in {"python": "", "jobq": " -m jobq"}.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{command} "$@"\n')
            program.chmod(0o755)
        self.environment = {
            **kept,
            **environment,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._dev: subprocess.Popen[bytes] | None = None
        self._log = place / ".dev.log"

    def read(self, blocks: list[Block]) -> None:
        """Do what the blocks say, one after the other."""
        for block in blocks:
            if block.not_run is None:
                self._do(block)

    def close(self) -> None:
        """End what still runs."""
        if self._dev is not None:
            self._dev.send_signal(signal.SIGINT)
            try:
                assert self._dev.wait(60) == 0, self.log
            finally:
                self._dev.kill()

    @property
    def log(self) -> str:
        """What `jobq dev` has printed."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _do(self, block: Block) -> None:
        if block.file is not None:
            self._write(block.file, block.text)
        elif block.language == "python":
            exec(compile(block.text, str(block), "exec"), self.names)
        elif block.language == "console":
            self._type(block)
        elif block.language == "sql":
            self.execute(block.text)
        else:
            raise AssertionError(
                f"{block}: there is no way to run {block.language or 'a block without a language'}: mark it"
            )

    def _write(self, name: str, text: str) -> None:
        path = self.place / name
        # A new file as well: two changes within a moment are told as one, by the name of the first.
        changed = path.suffix == ".py" and (not path.exists() or path.read_text() != text)
        told, before = self._restarts(name), self.log.count("working")
        path.write_text(text)
        if changed and self._dev is not None:
            wait_until(lambda: self._restarts(name) > told, timeout=60, what=f"the restart for {name}")
            wait_until(lambda: self.log.count("working") > before, timeout=60, what="the worker with the new code")

    def _restarts(self, name: str) -> int:
        return self.log.count(f"{name} changed: restarting the worker")

    def _type(self, block: Block) -> None:
        command: str | None = None
        expected: list[str] = []
        for line in [*block.text.splitlines(), "$ "]:
            if not line.startswith("$ "):
                assert command is not None, f"{block}: output before a command"
                expected.append(line)
                continue
            if command is not None:
                self._run(f"{block}: {command}", command, expected)
            command, expected = line[2:].strip(), []

    def _run(self, what: str, command: str, expected: list[str]) -> None:
        words = shlex.split(command, comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = self._url() if value.endswith("…") else value
            return
        if words[:2] == ["jobq", "dev"]:
            self._start(words)
            return
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.place,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{what}\n{done.stdout}{done.stderr}{self.log}"
        lines = iter(done.stdout.splitlines())
        for wanted in expected:
            pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("…")))
            assert any(pattern.fullmatch(line) for line in lines), (
                f"{what}\nno line {wanted!r} in\n{done.stdout}{done.stderr}"
            )

    def _start(self, words: list[str]) -> None:
        with self._log.open("wb") as log:
            self._dev = subprocess.Popen(
                words, cwd=self.place, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._says("working")

    def _url(self) -> str:
        """Return the database's URL: the one that is set, or the one that `jobq dev` has printed."""
        if (given := self.environment.get("JOBQ_DATABASE_URL")) is not None:
            return given
        found = _DEV_URL.search(self.log)
        assert found is not None, self.log
        return found[1]

    def _says(self, text: str) -> None:
        def seen() -> bool:
            assert self._dev is not None
            assert self._dev.poll() is None, self.log
            return text in self.log

        wait_until(seen, timeout=60, what=f"{text!r} in the log of `jobq dev`")
