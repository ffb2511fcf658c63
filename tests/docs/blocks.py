"""The fenced code blocks of a document, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"```(\w*)\s*")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_FILE = re.compile(r"# ([\w.-]+\.(?:py|ini|toml))\s*")


@dataclass(frozen=True, slots=True)
class Block:
    """One block."""

    document: Path
    line: int
    """The line of its first line, from 1."""
    language: str
    text: str
    not_run: str | None
    """Why it is not run, as a comment before it says; None: it is."""

    @property
    def file(self) -> str | None:
        """The name of the file that it is, by its first line; None: it is none."""
        found = _FILE.fullmatch(self.text.partition("\n")[0])
        return found[1] if found else None

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}"


def blocks(document: Path) -> list[Block]:
    """Return the blocks of a document."""
    found = []
    lines = document.read_text(encoding="utf-8").splitlines()
    begin: int | None = None
    language = ""
    why: str | None = None
    for number, line in enumerate(lines, 1):
        fence = _FENCE.fullmatch(line)
        if fence is None:
            continue
        if begin is None:
            begin, language = number, fence[1]
            mark = _NOT_RUN.fullmatch(lines[number - 2]) if number > 1 else None
            why = mark[1] if mark else None
        else:
            found.append(Block(document, begin + 1, language, "\n".join(lines[begin : number - 1]) + "\n", why))
            begin = None
    assert begin is None, f"{document.name}:{begin}: this block has no end"
    return found
