"""How an execution of a durable task ends before the task does: it waits, and its slot is free."""

from __future__ import annotations

from jobq._core.durations import WEEK

LONGEST_WAIT = float(WEEK)
"""Most seconds between two looks of a job that waits for a signal or a child.

It is woken when what it waits for is there. This look is a second line of defence: it costs one
claim in a week.
"""


class Suspended(BaseException):
    """Raised by a step that has to wait: the job goes back, and the task is called again later.

    It is a BaseException, so ``except Exception`` in a task does not stop it. ``finally`` blocks
    and context managers run.
    """

    def __init__(self, seconds: float, *, waits: bool = False) -> None:
        super().__init__(f"the job waits for {seconds:g} s" + (" or until it is woken" if waits else ""))
        self.seconds = seconds
        """Until the task is called again, if nothing wakes the job before."""
        self.waits = waits
        """Whether a signal, or the end of a child, wakes the job."""


class ExecutionLost(BaseException):
    """Raised by a step whose execution no longer holds its job: another one may run it by now."""


def suspension_in(error: BaseException) -> Suspended | None:
    """Return the suspension that `error` is; None: it is another error.

    A TaskGroup of the task puts several into one group.
    """
    if isinstance(error, Suspended):
        return error
    if not isinstance(error, BaseExceptionGroup):
        return None
    found = [suspension_in(each) for each in error.exceptions]
    known = [each for each in found if each is not None]
    return merged(known) if known and len(known) == len(found) else None


def without_suspensions(error: BaseException) -> BaseException:
    """Return `error` without the suspensions in it, if a TaskGroup has put them into one group with errors."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    _, rest = error.split(Suspended)
    return error if rest is None else rest


def merged(suspensions: list[Suspended]) -> Suspended:
    """Return the suspension of an execution whose branches all wait: until the first may go on."""
    return Suspended(min(each.seconds for each in suspensions), waits=any(each.waits for each in suspensions))
