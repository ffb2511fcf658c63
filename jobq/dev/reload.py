"""Noticing that Python files changed, by looking at their times: works on every file system,
containers' included.

Not watchfiles: its notifications do not cross bind mounts and network file systems, where it has to
poll as well; it wants a thread or a loop of its own beside the supervisor's; and it would be one
more dependency for these forty lines.
"""

from __future__ import annotations

import os
from pathlib import Path

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_Times = dict[str, tuple[int, int]]


class Watcher:
    """Polls the ``.py`` files below `root`, except in hidden directories, virtual environments and
    build results.

    A change is reported once two polls in a row find the same state, so that an editor that writes
    many files, or a checkout, causes one restart.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._settled = self._latest = self._look()

    def poll(self) -> list[str]:
        """Return the sorted relative paths that were changed, added or removed; [] while files are
        still changing.
        """
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
                    except OSError:  # removed in the meantime
                        continue
                    found[path] = (stat.st_mtime_ns, stat.st_size)
        return found
