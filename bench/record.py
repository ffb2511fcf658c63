"""The file in which jobs write down when they start, and clients when they call."""

from __future__ import annotations

import mmap
from array import array
from itertools import count
from pathlib import Path


class Record:
    """`places` floats (CLOCK_MONOTONIC, seconds; 0: not yet), shared with the processes of a run.

    Processes that map it share one file. Those that write it as a whole at their end (Node) get a file each, by `part`.
    """

    def __init__(self, directory: Path, places: int) -> None:
        self.places = places
        self._directory = directory
        self._numbers = count(1)
        self._parts: list[Path] = []
        self._next = 0
        self.path = self._make("record")
        with self.path.open("r+b") as file:
            self._view = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")

    def part(self) -> Path:
        """Return a file for one process alone."""
        path = self._make(f"record-{next(self._numbers)}")
        self._parts.append(path)
        return path

    def any_started(self, first: int = 0, look: int = 1000) -> bool:
        """Tell whether one of the first jobs has started, as far as processes show it while they run."""
        return any(self._view[first : first + look])

    def all_started(self, first: int, jobs: int) -> bool:
        """Tell whether all of `jobs` have started; each call goes on where the last one stopped."""
        at = max(self._next, first)
        while at < first + jobs and self._view[at]:
            at += 1
        self._next = at
        return at >= first + jobs

    @property
    def seen(self) -> int:
        """How far `all_started` has come."""
        return self._next

    def starts(self, first: int = 0, jobs: int | None = None) -> array[float]:
        """Return when each job started, 0 where it did not."""
        return self._merged("", first, self.places - first if jobs is None else jobs)

    def begun(self, first: int = 0, jobs: int | None = None) -> array[float]:
        """Return when the call for each job began, 0 where there was none."""
        return self._merged(".begun", first, self.places - first if jobs is None else jobs)

    def _make(self, name: str) -> Path:
        path = self._directory / name
        for each in (path, Path(f"{path}.begun")):
            with each.open("wb") as file:
                file.truncate(self.places * 8)  # sparse: only what is written takes space
        return path

    def _merged(self, suffix: str, first: int, jobs: int) -> array[float]:
        found = _read(Path(f"{self.path}{suffix}"), first, jobs)
        for part in self._parts:
            for at, value in enumerate(_read(Path(f"{part}{suffix}"), first, jobs)):
                if value:
                    found[at] = value
        return found


def _read(path: Path, first: int, jobs: int) -> array[float]:
    with path.open("rb") as file:
        file.seek(first * 8)
        return array("d", file.read(jobs * 8))
