"""What is measured, one workload a file."""

from __future__ import annotations

from bench.workloads.base import Bench, Workload
from bench.workloads.bulk import BULK
from bench.workloads.drain import DRAIN, DRAIN_2
from bench.workloads.enqueue import ENQUEUE
from bench.workloads.flatness import FLATNESS
from bench.workloads.floor import FLOOR
from bench.workloads.latency import LATENCY
from bench.workloads.snapshot import SNAPSHOT
from bench.workloads.soak import SOAK
from bench.workloads.sustained import SUSTAINED
from bench.workloads.workers import WORKERS

__all__ = ["WORKLOADS", "Bench", "Workload"]

WORKLOADS: tuple[Workload, ...] = (
    DRAIN, FLOOR, DRAIN_2, LATENCY, ENQUEUE, BULK, SNAPSHOT, SUSTAINED, FLATNESS, WORKERS, SOAK,
)  # fmt: skip
