"""Noticing that Python files changed, by looking at their times: works on every file system, containers' included."""

from __future__ import annotations

import os
from pathlib import Path

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_Times = dict[str, tuple[int, int]]


class Watcher:
    """Looks at the ``.py`` files below `root`; hidden directories, virtual environments and build results are left out.

    A change is reported once it has settled, which is when two looks in a row find the same: an editor that writes many
    files, or a checkout, causes one restart.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._settled = self._latest = self._look()

    def poll(self) -> list[str]:
        """Return the paths (relative to the root, sorted) that were changed, added or removed; [] while files change."""
        now = self._look()
        still, self._latest = now == self._latest, now
        if not still or now == self._settled:
            return []
        before, self._settled = self._settled, now
        changed = [path for path in before.keys() | now.keys() if before.get(path) != now.get(path)]
        return sorted(os.path.relpath(path, self._root) for path in changed)

    def _look(self) -> _Times:
        found: _Times = {}
        for directory, names, files in os.walk(self._root):
            if "pyvenv.cfg" in files:
                names.clear()
                continue
            names[:] = [name for name in names if not name.startswith(".") and name not in _SKIPPED]
            for file in files:
                if file.endswith(".py"):
                    path = os.path.join(directory, file)
                    try:
                        stat = os.stat(path)
                    except OSError:  # removed meanwhile
                        continue
                    found[path] = (stat.st_mtime_ns, stat.st_size)
        return found
