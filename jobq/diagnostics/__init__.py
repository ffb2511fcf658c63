"""What is wrong with a database of jobq's: one list of findings for the status page, `jobq doctor` and metrics.

`examine` makes the list. Each check reads from a `Snapshot`, which reads every fact once; a check must also be right when no
worker is alive. One cause is one finding, however many queues, workers or tables it hits.
"""

from __future__ import annotations

from jobq.diagnostics.checks import examine, examine_queue, examine_snapshot
from jobq.diagnostics.finding import Finding, Status
from jobq.diagnostics.snapshot import Snapshot

__all__ = ["Finding", "Snapshot", "Status", "examine", "examine_queue", "examine_snapshot"]
