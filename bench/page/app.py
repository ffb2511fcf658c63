"""The application whose jobs fill the database: sixty tasks that do nothing, in forty queues."""

from __future__ import annotations

from jobq import JobQ

q = JobQ()

_SUBJECTS = ("order", "invoice", "payment", "mail", "thumbnail", "search", "export", "customer", "stock", "report")
_VERBS = ("create", "check", "send", "render", "sync", "expire")
TASKS = [f"{subject}.{verb}" for subject in _SUBJECTS for verb in _VERBS]
QUEUES = [
    "default", *_SUBJECTS, *(f"{subject}-slow" for subject in _SUBJECTS), *(f"{subject}-eu" for subject in _SUBJECTS),
    *(f"tenant-{n:02}" for n in range(9)),
]  # fmt: skip


def nothing(order_id: int, customer: str, amount: float, note: str) -> None:
    """Take what a realistic job takes, and do nothing."""


for name in TASKS:
    q.task(name=name)(nothing)
