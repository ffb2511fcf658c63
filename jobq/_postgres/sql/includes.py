"""Shared parts of SQL texts: the line ``--include <name>`` stands for ``fragments/<name>.sql``.

The name of a fragment of one subject begins with its folder: ``--include steps/has_undo job=job.id``.
A fragment may take words: ``--include release_keys jobs=bound`` replaces ``$jobs`` in the fragment
by ``bound``. All words are required; there are no defaults. A fragment may include others. Includes
are resolved once, when the text is loaded, so the server sees ordinary statements.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files
from string import Template

_INCLUDE = re.compile(r"^(?P<indent> *)--include (?P<name>(?:[a-z_]+/)?[a-z_]+)(?P<words>(?: [a-z_]+=\S+)*) *$")
_WORD = re.compile(r"([a-z_]+)=(\S+)")


def fragment(name: str) -> str:
    """Return the text of ``fragments/<name>.sql``.

    Raises FileNotFoundError if there is no such file.
    """
    return files("jobq._postgres.sql").joinpath("fragments", f"{name}.sql").read_text(encoding="utf-8")


def expand(text: str, *, read: Callable[[str], str] | None = None) -> str:
    """Return `text` with each ``--include`` line replaced by its fragment, at that line's indent.

    Args:
        text: SQL text. The comments of fragments are left out.
        read: Returns the text of a fragment by its name. Default: `fragment`.

    Raises:
        ValueError: A line begins with ``--include`` but does not have that form, a fragment
            includes itself, or the words of a fragment are not the given words.
        Exception: `read` raises it for an unknown name.
    """
    return _expand(text, read or fragment, ())


def _expand(text: str, read: Callable[[str], str], within: tuple[str, ...]) -> str:
    lines: list[str] = []
    for line in text.split("\n"):
        if not line.lstrip().startswith("--include"):
            lines.append(line)
            continue
        match = _INCLUDE.match(line)
        if match is None:
            raise ValueError(f"{line.strip()!r}: expected --include <name> [<word>=<value> ...]")
        name = match["name"]
        if name in within:
            raise ValueError(f"--include {name}: it includes itself, by {' -> '.join((*within, name))}")
        part = _filled(name, read(name), dict(_WORD.findall(match["words"])))
        included = _expand(part, read, (*within, name))
        lines += [f"{match['indent']}{each}" for each in included.split("\n") if each.strip()]
    return "\n".join(lines)


def _filled(name: str, text: str, words: dict[str, str]) -> str:
    # Comments are for readers of the fragment, and may mention `$words`.
    lines = text.split("\n")
    code = Template("\n".join(line for line in lines if _is_code(line)))
    unused = sorted(set(words) - set(code.get_identifiers()))
    if unused:
        raise ValueError(f"--include {name}: the fragment has no ${', $'.join(unused)}")
    try:
        return code.substitute(words)
    except KeyError as error:
        raise ValueError(f"--include {name}: no {error.args[0]}= is given") from None


def _is_code(line: str) -> bool:
    start = line.lstrip()
    return not start.startswith("--") or start.startswith("--include")
