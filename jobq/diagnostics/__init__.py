"""Faults of a jobq database: one list of findings for the status page, `jobq doctor` and metrics.

`examine` makes the list. Each check reads from a `Snapshot`, which reads every fact once. A check
must also be correct if no worker is alive. One cause gives one finding, however many queues,
workers or tables it affects.
"""

from __future__ import annotations

from jobq.diagnostics.checks import examine, examine_queue, examine_snapshot
from jobq.diagnostics.finding import Finding, Status
from jobq.diagnostics.snapshot import Snapshot

__all__ = ["Finding", "Snapshot", "Status", "examine", "examine_queue", "examine_snapshot"]
