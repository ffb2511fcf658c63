"""Problems of workers that other layers know by name. The worker writes them to its row."""

from __future__ import annotations

RUNS_ALONE = "run beside others"
"""A task is in quarantine: its jobs have ended runners, so they cannot run beside others."""
