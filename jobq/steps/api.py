"""`step`: what a durable task does its work with."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn, ParamSpec, TypeVar, overload

from jobq._core.validation import check_duration, check_int, check_seconds, check_text
from jobq.errors import InvalidOption
from jobq.job import NewJob
from jobq.retry import Backoff, Delays
from jobq.steps import kinds
from jobq.steps.branches import Branches
from jobq.steps.calls import (
    check_called,
)
from jobq.steps.children import Children
from jobq.steps.current import for_async_tasks
from jobq.steps.current import step_log as _log
from jobq.steps.drive import drive, drive_async
from jobq.steps.kinds import Called, StepPolicy
from jobq.steps.many_items import ManyItems

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


class StepOptions:
    """Steps with options. Made by ``step.options(…)``; it can be kept and reused."""

    def __init__(self, policy: StepPolicy) -> None:
        self._policy = policy

    def run(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function as a step, like ``step.run``, with these options."""
        log = _log("run", is_async=False)
        check_called(function)
        taking = kinds.run(log, self._policy, Called(function, args, kwargs), log.host.in_transaction)
        result: R = drive(log, taking)
        return result

    @overload
    async def run_async(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...

    @overload
    async def run_async(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...

    @for_async_tasks
    async def run_async(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call a function as a step, like ``step.run_async``, with these options."""
        log = _log("run_async", is_async=True)
        taking = kinds.run(log, self._policy, Called(function, args, kwargs), log.host.in_transaction_async)
        return await drive_async(log, taking)


class Step(StepOptions, Children, Branches, ManyItems):
    """The steps of a durable task: ``from jobq import step``.

    A task with ``@q.task(durable=True)`` does its work in steps. The result of each is stored. When the
    job is run again, after a crash, an error, a deploy or a wait, its function is called from the top,
    and each step that is stored returns its result at once. So code between steps runs again, and must
    do the same each time; what has an effect belongs in a step::

        @q.task(durable=True)
        async def onboard(user_id: int) -> str:
            user = await step.run_async(load_user, user_id)
            await step.sleep_async(timedelta(days=1))
            approval = await step.wait_for_async("approval", Approval, timeout=timedelta(days=3))
            if approval is None:
                return "not approved"
            return await step.invoke_async(ship, user_id)

    In a task that is a ``def``, the same methods have no ``_async`` and are not awaited. A sleep, a wait
    and a child hold no slot, no thread and no connection: the execution ends there (``finally`` blocks
    and context managers run), and the job comes back later.

    A step is found again by its name, which is its function's, and its arguments. The order of steps
    does not matter.
    """

    def __init__(self) -> None:
        super().__init__(StepPolicy())

    def options(
        self,
        *,
        name: str | None = None,
        max_attempts: int | None = None,
        backoff: Backoff | Delays | None = None,
        transactional: bool = False,
        undo: Callable[[Any], object] | None = None,
    ) -> StepOptions:
        """Return steps with options.

        Args:
            name: the step's name, 1 to 200 characters (default: the function's name). A name that is
                given must not be used with other arguments: that is taken for a change of the code.
            max_attempts: how often the function is called before its error is stored and raised. Between
                two calls the job waits, without a slot. Default: an error leaves the step at once; if
                the task does not catch it, the job is retried as its task says, and the step with it.
            backoff: how long the job waits between calls, as for a task (default: as a task's).
            transactional: call the function in a transaction on ``current_job().connection`` (or
                ``.session``, or their async twins). Its effects commit with the stored result: exactly
                once. It costs a commit of its own, and a connection of the pool meanwhile.
            undo: a function that takes the step's result and undoes its effect (a compensation, as in a
                saga). If the job ends as failed or cancelled, those of the steps that are done are called,
                the last step first, each at least once; each has as many attempts as the task's jobs. Then
                a retry of the job begins from the start. In an async task it may be an ``async def``.

        Raises InvalidOption.
        """
        if name is not None:
            check_text("name", name, 200)
        if max_attempts is not None:
            check_int("max_attempts", max_attempts, 1, 2**31 - 1)
        elif backoff is not None:
            raise InvalidOption("step.options: backoff is for several attempts of the step: pass max_attempts as well")
        if not isinstance(transactional, bool):
            raise InvalidOption(f"step.options: transactional={transactional!r}: expected True or False")
        if transactional and max_attempts is not None:
            raise InvalidOption("step.options: max_attempts and transactional are both given: pass only one of them")
        return StepOptions(
            StepPolicy(
                name=name,
                max_attempts=max_attempts,
                backoff=Backoff.of(backoff),
                transactional=transactional,
                undo=undo,
            )
        )

    # --- waiting --------------------

    def sleep(self, duration: float | timedelta, *, name: str | None = None) -> None:
        """Go on after `duration`, in seconds or as a timedelta, by the database's clock.

        Args:
            duration: from 0 to 100 years.
            name: a name for the page and the log, 1 to 200 characters (default: ``sleep``).

        Raises InvalidOption.
        """
        log = _log("sleep", is_async=False)
        drive(log, kinds.sleep(log, _seconds("step.sleep", duration), _sleep_name(name)))

    @for_async_tasks
    async def sleep_async(self, duration: float | timedelta, *, name: str | None = None) -> None:
        """Go on after `duration`, like `sleep`."""
        log = _log("sleep_async", is_async=True)
        await drive_async(log, kinds.sleep(log, _seconds("step.sleep_async", duration), _sleep_name(name)))

    @overload
    def wait_for(self, name: str, kind: type[T], *, timeout: None = None) -> T: ...

    @overload
    def wait_for(self, name: str, kind: type[T], *, timeout: float | timedelta) -> T | None: ...

    def wait_for(self, name: str, kind: type[T], *, timeout: float | timedelta | None = None) -> T | None:
        """Wait for a signal that is sent by ``q.send_signal(…, name, payload)``, and return its payload.

        A signal that was sent before is taken at once: signals of one name are taken in their order, each
        once. The second ``wait_for`` of a name in one job takes the second signal.

        Args:
            name: the signal's name, 1 to 200 characters.
            kind: the type of the payload, converted as arguments are; None's type for none.
            timeout: seconds or timedelta, from the first call on. Then it returns None, and so it does
                in every replay. Default: no limit.

        Raises:
            InvalidArguments: the payload does not fit `kind`.
            InvalidOption: an option has an unusable value.
        """
        log = _log("wait_for", is_async=False)
        found: T | None = drive(log, kinds.wait_for(log, check_text("name", name, 200), kind, _timeout(timeout)))
        return found

    @overload
    async def wait_for_async(self, name: str, kind: type[T], *, timeout: None = None) -> T: ...  # noqa: ASYNC109

    @overload
    async def wait_for_async(self, name: str, kind: type[T], *, timeout: float | timedelta) -> T | None: ...  # noqa: ASYNC109

    @for_async_tasks
    async def wait_for_async(
        self,
        name: str,
        kind: type[T],
        *,
        timeout: float | timedelta | None = None,  # noqa: ASYNC109  # as `wait_for`
    ) -> T | None:
        """Wait for a signal and return its payload, like `wait_for`."""
        log = _log("wait_for_async", is_async=True)
        taking = kinds.wait_for(log, check_text("name", name, 200), kind, _timeout(timeout))
        found: T | None = await drive_async(log, taking)
        return found

    # --- long lives --------------------

    def restart(self, job: NewJob) -> NoReturn:
        """Begin this job again with other arguments, and forget its steps: for a job that lives for ever.

        A job may have 100,000 steps, and each replay reads them. Signals that it has not taken stay. The
        id, the key and the queue stay the job's; options of `job` are ignored::

            @q.task(durable=True)
            def watch(account: int, seen: int) -> None:
                for _ in range(100):
                    seen = step.run(look, account, seen)
                    step.sleep(60)
                step.restart(watch.job(account, seen))

        Args:
            job: a job of this same task, made by ``task.job(…)``; its arguments are the next ones.

        Raises InvalidOption: it is of another task, or steps with ``undo=`` are done.
        """
        log = _log("restart", is_async=False)
        drive(log, kinds.restart(log, job))
        raise AssertionError("unreachable")

    @for_async_tasks
    async def restart_async(self, job: NewJob) -> NoReturn:
        """Begin this job again with other arguments, like `restart`."""
        log = _log("restart_async", is_async=True)
        await drive_async(log, kinds.restart(log, job))
        raise AssertionError("unreachable")

    # --- changes of the code --------------------

    def since(self, name: str) -> bool:
        """Return whether this job came to this line first with code that has it.

        It guards a change of the code: jobs that had passed the line before go on by the former code::

            if step.since("two signatures"):
                step.wait_for("second signature", Signature)

        The answer of a job never changes. Remove the line when no such job is left.
        """
        log = _log("since", is_async=False)
        return bool(drive(log, kinds.since(log, check_text("name", name, 200))))

    @for_async_tasks
    async def since_async(self, name: str) -> bool:
        """Return whether this job came to this line first with code that has it, like `since`."""
        log = _log("since_async", is_async=True)
        return bool(await drive_async(log, kinds.since(log, check_text("name", name, 200))))


step = Step()
"""The steps of the durable task that is run here."""


def _seconds(what: str, value: float | timedelta) -> float:
    seconds = check_seconds(what, value)
    check_duration(what, seconds, zero=True)
    return seconds


def _sleep_name(name: str | None) -> str | None:
    return None if name is None else check_text("name", name, 200)


def _timeout(value: float | timedelta | None) -> float | None:
    return None if value is None else _seconds("timeout", value)
