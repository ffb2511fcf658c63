"""The kinds of steps: what each does when it is new, and what it returns when it is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

from pydantic import ValidationError

from jobq._core.fields import Fields, explain
from jobq._core.text import brief
from jobq.errors import ChildFailed, InvalidArguments, InvalidOption, JobControl, ResultError, TimedOut, UndoFailed
from jobq.job import NewJob
from jobq.retry import Backoff
from jobq.steps import failures
from jobq.steps.functions import StepFunction, hash_of, shown, step_function, whole_call
from jobq.steps.log import FINAL, VERDICT, Call, Perform, StepLog, Undo
from jobq.steps.store import NewStep, RestartJob, SetStepsAside, StepKey, StoredStep
from jobq.steps.suspension import LONGEST_WAIT

NO_ARGS = hash_of("{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPolicy:
    """The options of a step: see ``step.options``."""

    name: str | None = None
    max_attempts: int | None = None
    backoff: Backoff = Backoff()  # noqa: RUF009  # frozen
    transactional: bool = False
    undo: Callable[[Any], Any] | None = None


class Called(NamedTuple):
    """A call of a function, as the task wrote it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def run(
    log: StepLog,
    policy: StepPolicy,
    called: Called,
    in_transaction: Callable[[StepLog, Callable[[], Any], Callable[[Any], list[NewStep]]], Any],
) -> Generator[Any, Any, Any]:
    """Call a function once, and store its result.

    `in_transaction` calls it in a transaction, stores there the steps that the second function makes of
    its result, and returns them.
    """
    function, args, kwargs = whole_call(*called)
    step = step_function(function, policy.name)
    yield from log.begin()
    log.check_function(step.name, step.identity)
    text = step.encode(args, kwargs, log.max_result_bytes)
    key = log.key("run", step.name, hash_of(text))
    stored = log.find(key)
    if stored is not None and stored.state in FINAL:
        return _replayed(log, policy, step, stored)
    if stored is None:
        log.check_same(key, shown(text))
    else:
        log.wait_on(stored)
    log.check_room()
    place, tries = (log.new_place(), 1) if stored is None else (stored.place, stored.tries + 1)
    begun = log.clock()

    def row(state: str, **more: Any) -> NewStep:
        return NewStep(
            key=key, place=place, state=state, seconds=log.clock() - begun, args=shown(text), tries=tries, **more
        )

    def done(value: Any) -> NewStep:
        result = step.arguments.encode_result(value, log.max_result_bytes).decode()
        return row("done", result=result, undo=undo_name(policy.undo))

    whole = partial(function, *args, **kwargs)
    try:
        if policy.transactional:
            noted: list[NewStep] = []

            def rows(value: Any) -> list[NewStep]:
                last = done(value)
                noted.extend(log.flushed())
                return [*noted, last]

            try:
                finished = yield Perform(partial(in_transaction, log, whole, rows))
            except BaseException:
                log.put_back(noted)
                raise
            # As a replay will see it.
            return _kept(log, place, key, policy.undo, step.arguments.decode_result(finished[-1].result))
        last = done((yield Call(whole)))
    except TimedOut:
        raise
    except Exception as error:
        # Neither a decision about the job, nor a result that cannot be stored, is better the next time.
        retries = policy.max_attempts is not None and not isinstance(error, (JobControl, ResultError))
        if retries and tries < (policy.max_attempts or 0):
            delay = policy.backoff.delay(tries) or 0.0
            yield from log.write(row("retrying", error=failures.encode(error), wake_in=delay))
            log.suspend(delay)
        failed = row("failed", error=failures.encode(error))
        if retries:
            yield from log.write(failed)
            log.raised(error, key)
        else:
            # If the task ends by it, the step runs again at the next attempt. If the task catches
            # it and goes on, it is stored with the next step, and is raised again in a replay.
            log.note(failed)
            log.raised(error, key, has_attempts=False)
        raise
    yield from log.write(last)
    return _kept(log, place, key, policy.undo, step.arguments.decode_result(last.result or "null"))


def _replayed(log: StepLog, policy: StepPolicy, step: StepFunction, stored: StoredStep) -> Any:
    """Return the result of a stored step, or raise its error."""
    if stored.state == "done":
        result = step.arguments.decode_result(stored.result or "null")
        return _kept(log, stored.place, stored.key, policy.undo, result)
    error = failures.rebuild(step.name, stored.error or {})
    raise log.raised(error, stored.key, has_attempts=policy.max_attempts is not None)


def sleep(log: StepLog, seconds: float, name: str | None) -> Generator[Any, Any, None]:
    """End the execution, and go on after `seconds`."""
    yield from log.begin()
    text = json.dumps({"seconds": seconds})
    key = log.key("sleep", name or "sleep", hash_of(text))
    stored = log.find(key)
    if stored is None:
        log.check_same(key, text)
        log.check_room()
        yield from log.write(NewStep(key=key, place=log.new_place(), state="waiting", args=text, wake_in=seconds))
        log.suspend(seconds)
    elif stored.state == "waiting":
        log.wait_on(stored)
        log.note(NewStep(key=key, place=stored.place, state="done", args=text))


def wait_for(log: StepLog, name: str, kind: Any, timeout: float | None) -> Generator[Any, Any, Any]:
    """Return the payload of the next signal of this name, as `kind`; None after `timeout` seconds."""
    fields = _payload_fields(name, kind)
    yield from log.begin()
    key = log.key("signal", name, NO_ARGS)
    stored = log.find(key)
    if stored is None or stored.state not in FINAL:
        log.check_room()
        stored = yield from log.take(key, log.new_place() if stored is None else stored.place, timeout)
    if stored.state == "timed_out":
        return None
    if stored.state != "done":
        left = LONGEST_WAIT if stored.seconds_left is None else min(stored.seconds_left, LONGEST_WAIT)
        log.suspend(left, waits=True)
    return _payload(name, kind, fields, stored)


class Children(NamedTuple):
    """What `invoke` needs from the application."""

    decode: Callable[[str], Any]
    """Converts the result."""
    start: Callable[[StepLog, NewJob, NewStep], Any]
    """Inserts the job with the step."""
    look: Callable[[int | None], Any]
    """Returns (state, result, error) of its end, or None."""


def invoke(
    log: StepLog, job: NewJob, children: Children, undo: Callable[[Any], Any] | None = None
) -> Generator[Any, Any, Any]:
    """Run a job of another task, and return its result."""
    decode = children.decode
    name, args = job.task, job.args_json
    yield from log.begin()
    key = log.key("child", name, hash_of(args))
    stored = log.find(key)
    if stored is None:
        log.check_same(key, shown(args))
        log.check_room()
        yield from log.write()
        new = NewStep(key=key, place=log.new_place(), state="waiting", args=shown(args))
        yield Perform(partial(children.start, log, job, new))
        log.suspend(LONGEST_WAIT, waits=True)
    assert stored is not None
    if stored.state == "waiting":
        found = yield Perform(partial(children.look, stored.child_id))
        if found is None:
            log.check_end()
            log.suspend(LONGEST_WAIT, waits=True)
        state, result, error = found
        row = partial(NewStep, key=key, place=stored.place, args=stored.args, child_id=stored.child_id)
        if state == "succeeded":
            yield from log.write(row(state="done", result=result or "null", undo=undo_name(undo)))
            return _kept(log, stored.place, key, undo, decode(result or "null"))
        told = {"type": state, "message": error or ""}
        yield from log.write(row(state="failed", error=json.dumps(told)))
        raise log.raised(ChildFailed(name, state, error or ""), key)
    if stored.state == "failed":
        told = stored.error or {}
        raise log.raised(ChildFailed(name, str(told.get("type", "failed")), str(told.get("message", ""))), key)
    return _kept(log, stored.place, key, undo, decode(stored.result or "null"))


def since(log: StepLog, name: str) -> Generator[Any, Any, bool]:
    """Return whether this job came here first with code that has this line. The answer is stored."""
    yield from log.begin()
    key = log.key("since", name, NO_ARGS)
    if (stored := log.find(key)) is not None:
        return stored.result == "true"
    is_new = not log.is_replaying
    log.check_room()
    yield from log.write(NewStep(key=key, place=log.new_place(), state="done", result=json.dumps(is_new)))
    return is_new


def restart(log: StepLog, job: NewJob) -> Generator[Any, Any, None]:
    """Forget the steps, and begin again with the arguments of `job`."""
    yield from log.begin()
    if job.task != log.task:
        raise InvalidOption(
            f"step.restart: the job is of task {job.task!r}: expected one of {log.task!r}, whose job begins again"
        )
    if not log.knows_all_undos or log.undos:
        raise InvalidOption(
            "step.restart: steps with undo= are done, and could not be undone afterwards: end the job, and let it enqueue "
            "the next one"
        )
    log.check_room()
    log.flushed()
    yield RestartJob(job.args_json)
    log.suspend(0.0)


def undo(log: StepLog, verdict: str, max_attempts: int, backoff: Backoff) -> Generator[Any, Any, None]:
    """Undo the steps that are done, the last one first, and set them aside.

    `verdict` says as JSON text why the job ends: it is stored first, so that a later execution goes on
    here. Raises UndoFailed when a function has failed `max_attempts` times; between its calls the job waits.
    """
    if log.verdict is None:
        yield from log.write(NewStep(key=VERDICT, place=log.new_place(), state="done", result=verdict))
        log.verdict = verdict
    for each in sorted(log.undos, key=lambda one: one.place, reverse=True):
        # A step and a child may be equal in the rest.
        key = StepKey("undo", each.key.name, f"{each.key.kind}:{each.key.args_hash}", each.key.number)
        stored = log.find(key)
        if stored is not None and stored.state == "done":
            continue
        if log.is_stopping():
            log.suspend(0.0)
        if stored is not None and stored.state == "retrying" and (stored.seconds_left or 0.0) > 0.0:
            log.suspend(stored.seconds_left or 0.0)
        tries = 1 if stored is None or stored.state == "failed" else stored.tries + 1
        begun = log.clock()
        row = partial(
            NewStep,
            key=key,
            place=log.new_place() if stored is None else stored.place,
            args=undo_name(each.function),
            tries=tries,
        )
        try:
            yield Call(partial(each.function, each.result))
        except Exception as error:
            told, seconds = failures.encode(error), log.clock() - begun
            if tries < max_attempts:
                delay = backoff.delay(tries) or 0.0
                yield from log.write(row(state="retrying", error=told, wake_in=delay, seconds=seconds))
                log.suspend(delay)
            yield from log.write(row(state="retrying", error=told, wake_in=0.0, seconds=seconds))
            raise UndoFailed(each.key.name, type(error).__name__, str(error)) from error
        yield from log.write(row(state="done", result="null", seconds=log.clock() - begun))
    yield SetStepsAside()


def undo_name(function: Callable[[Any], Any] | None) -> str | None:
    """Return the name of a function that undoes a step, for people."""
    return (
        None
        if function is None
        else str(getattr(function, "name", None) or getattr(function, "__name__", function))[:200]
    )


def _kept(log: StepLog, place: int, key: StepKey, undo: Callable[[Any], Any] | None, value: Any) -> Any:
    """Return the value of a step that is done, and remember how to undo it."""
    if undo is not None:
        log.undos.append(Undo(place, key, undo, value))
    return value


def _payload_fields(name: str, kind: Any) -> Fields:
    """Return what reads payloads of this type. Raises InvalidOption for a type that cannot be read."""
    if isinstance(kind, str):
        raise _unusable(name, kind)
    try:
        return _kept_fields(kind)
    except TypeError:  # a type that cannot be hashed, or is none
        pass
    except Exception as error:  # raised by pydantic, or by a type that makes its own schema
        raise _unusable(name, kind) from error
    try:
        return Fields({"payload": (kind, True)})
    except Exception as error:
        raise _unusable(name, kind) from error


@lru_cache(maxsize=1024)
def _kept_fields(kind: Any) -> Fields:
    return Fields({"payload": (type(None) if kind is None else kind, True)})


def _unusable(name: str, kind: Any) -> InvalidOption:
    return InvalidOption(f"step.wait_for({name!r}, {brief(kind)}): expected a type whose values JSON can hold")


def _payload(name: str, kind: Any, fields: Fields, stored: StoredStep) -> Any:
    try:
        return fields.parse(f'{{"payload":{stored.result or "null"}}}')["payload"]
    except ValidationError as error:
        raise InvalidArguments(f"signal {name!r}: its payload does not fit {kind!r}: {explain(error)}") from None
