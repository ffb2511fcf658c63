"""Known faults, put back one at a time: each must make the test fail that was written against it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
_KEYS = ("fault", "file", "old", "new", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change that brings a fault back, and the test that must notice."""

    name: str
    """The fault's name; with a number behind it where several mutants bring the same fault back."""
    source: str
    """The file of this directory that lists it, without its ending."""
    fault: str
    file: str
    old: str
    new: str
    test: str

    def damaged(self, text: str) -> str:
        """Return the file's `text` with the fault; raise ValueError where it does not apply."""
        if (times := text.count(self.old)) != 1:
            raise ValueError(f"`old` occurs {times} times in {self.file}: it must occur exactly once")
        return text.replace(self.old, self.new)


def load(directory: Path = HERE) -> list[Mutant]:
    """Read every mutant that the directory's TOML files list."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for path in sorted(directory.glob("*.toml")):
        for number, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []), 1):
            if set(entry) != set(_KEYS) or not all(isinstance(value, str) for value in entry.values()):
                raise ValueError(
                    f"{path.name}, mutant {number}: has the keys {sorted(entry)}: give texts for {', '.join(_KEYS)}"
                )
            times = seen[entry["fault"]] = seen.get(entry["fault"], 0) + 1
            name = entry["fault"] if times == 1 else f"{entry['fault']}.{times}"
            found.append(Mutant(name=name, source=path.stem, **entry))
    return found
