"""What can be a task, and what a task can do that a function can: be wrapped, pickled, copied, defined again."""

from __future__ import annotations

import asyncio
import copy
import functools
import importlib
import multiprocessing
import pickle
import sys
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobq import AsyncTask, InvalidArguments, JobQ, JobRef, Task, TaskDefinitionError
from tests.apps import pickled


@pytest.fixture
def q() -> JobQ:
    return JobQ("postgresql://nobody@127.0.0.1:1/nothing")


@dataclass
class Item:
    n: int


def handle(prefix: str, item: Item) -> str:
    return f"{prefix}{item.n}"


async def handle_later(prefix: str, item: Item) -> str:
    return f"{prefix}{item.n}"


class Handler:
    def __call__(self, item: Item) -> int:
        return item.n

    def method(self, item: Item) -> int:
        return item.n


class AsyncHandler:
    async def __call__(self, item: Item) -> int:
        return item.n


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    "function",
    [
        functools.partial(handle, "a"),
        functools.partial(functools.partial(handle), "a"),
        functools.partial(handle_later, "a"),
        functools.partial(Handler()),
        Handler(),
        Handler().method,
        AsyncHandler(),
        traced(functools.partial(handle, "a")),
    ],
)
def test_annotations_mean_the_names_around_the_inner_function(q: JobQ, function: Any) -> None:
    task = q.task(name="t")(function)
    assert task.decode_arguments(task.job(item=Item(1)).args_json)["item"] == Item(1)
    with pytest.raises(InvalidArguments, match="item=1"):
        task.job(item=1)


@pytest.mark.parametrize(
    ("function", "kind", "may_return_coroutine"),
    [
        (handle, Task, False),
        (handle_later, AsyncTask, False),
        (functools.partial(handle_later, "a"), AsyncTask, False),
        (AsyncHandler(), AsyncTask, False),
        (functools.partial(AsyncHandler()), AsyncTask, False),
        (AsyncHandler().__call__, AsyncTask, False),
        (traced(handle), Task, False),
        (traced(handle_later), Task, True),
        (traced(AsyncHandler()), Task, True),
    ],
)
def test_which_tasks_are_coroutines(q: JobQ, function: Any, kind: type, may_return_coroutine: bool) -> None:
    task = q.task(name="t")(function)
    assert (type(task), task.may_return_coroutine) == (kind, may_return_coroutine)


def test_a_wrapped_coroutine_function_does_not_tell_its_transaction(q: JobQ) -> None:
    with pytest.raises(TaskDefinitionError, match="make the wrapper an `async def`"):
        q.task(name="t", transactional=True)(traced(handle_later))


def test_a_method_is_refused_with_a_sentence(q: JobQ) -> None:
    with pytest.raises(TaskDefinitionError, match="work: a method of Service cannot be a task: a job has no 'self'"):

        class Service:
            @q.task
            def work(self, n: int) -> int:
                return n

    with pytest.raises(TaskDefinitionError, match="a method of Other cannot be a task: a job has no 'cls'"):

        class Other:
            @q.task(name="other")
            def make(cls, n: int) -> int:
                return n

    def named(self: int) -> int:
        return self

    assert q.task(named)(5) == 5
    assert pickled.Service.work(1) == pickled.Service().work(1) == 2


def test_a_task_is_pickled_by_its_name() -> None:
    for task in (pickled.double, pickled.triple, pickled.Service.work):
        assert pickle.loads(pickle.dumps(task)) is task
        assert copy.copy(task) is copy.deepcopy(task) is task
    options = pickle.loads(pickle.dumps(pickled.urgent))
    assert options.job(1) == pickled.urgent.job(1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(pickled.double, [1, 2])) == [2, 4]


def test_a_task_that_has_no_name_of_its_own_says_so(q: JobQ) -> None:
    task = q.task(name="other")(handle)
    with pytest.raises(pickle.PicklingError, match="handle"):
        pickle.dumps(task)


def test_a_reference_is_pickled_and_copied() -> None:
    ref = JobRef(
        5, created=True, replaced=False, key="k", source=pickled.double._jobs, decode=pickled.double._decode_result
    )
    for other in (pickle.loads(pickle.dumps(ref)), copy.copy(ref), copy.deepcopy(ref)):
        assert (other.id, other.created, other.replaced, other.key) == (5, True, False, "k")
        assert other._decode("7") == 7
        assert vars(other._source)["_task"] is pickled.double


CELL = "@q.task\ndef again(n: int) -> int:\n    return n + {0}\n"


def test_a_cell_that_is_run_again_replaces_its_task(q: JobQ) -> None:
    names: dict[str, Any] = {"q": q, "__name__": "__main__"}
    exec(CELL.format(1), names)
    exec(CELL.format(2), names)
    assert q.tasks["again"] is names["again"]
    assert q.tasks["again"](1) == 3
    with pytest.raises(TaskDefinitionError, match=r"is taken by __main__.again"):
        exec("@q.task(name='again')\ndef other(n: int) -> None: ...\n", names)


def test_schedules_of_a_cell_are_declared_again(q: JobQ) -> None:
    names: dict[str, Any] = {"q": q, "__name__": "__main__"}
    for minute in (1, 2):
        exec(f"@q.schedule('{minute} * * * *')\n{CELL.format(0).replace('n: int', 'n: int = 1')}", names)
    assert [str(schedule.when) for schedule in q.schedules.values()] == [str(q.schedules["again"].when)]
    assert "2 * * * *" in repr(q.schedules["again"].when)


def test_a_module_that_is_reloaded_replaces_its_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = types.ModuleType("jobq_test_holder")
    holder.q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jobq_test_holder", holder)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "jobq_test_reloaded.py"
    path.write_text("from jobq_test_holder import q\n" + CELL.format(1))
    module = importlib.import_module("jobq_test_reloaded")
    path.write_text("from jobq_test_holder import q\n\n\n" + CELL.format(20))
    importlib.invalidate_caches()
    importlib.reload(module)
    assert module.q.tasks["again"](1) == 21
    # Two of one name in one file are a mistake, which an import tells.
    path.with_name("jobq_test_twice.py").write_text(
        "from jobq_test_holder import q\n" + CELL.format(1) + CELL.format(2)
    )
    with pytest.raises(TaskDefinitionError, match="task 'again' is taken"):
        importlib.import_module("jobq_test_twice")
    path.with_name("jobq_test_double.py").write_text(
        "from jobq import JobQ\nq = JobQ()\n" + CELL.format(1) + CELL.format(2)
    )
    with pytest.raises(TaskDefinitionError, match="task 'again' is taken"):
        importlib.import_module("jobq_test_double")


def test_functions_made_by_a_function_do_not_replace_each_other(q: JobQ) -> None:
    def make(number: int) -> None:
        @q.task
        def inner() -> int:
            return number

    make(1)
    with pytest.raises(TaskDefinitionError, match="task 'inner' is taken"):
        make(2)


@pytest.mark.parametrize("annotation", [Any, "dict[frozenset[int], int]"])
def test_errors_of_other_libraries_become_ours(q: JobQ, annotation: Any) -> None:
    def odd(x: Any) -> None: ...

    odd.__annotations__["x"] = annotation
    with pytest.raises(InvalidArguments, match="odd: x"):
        q.task(odd).job({frozenset([1]): 1})


class NoSchema:
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        raise RuntimeError("no schema today")


@pytest.mark.parametrize("annotation", [NoSchema, "1 +", "list[", "undefined.name", 5])
def test_an_annotation_that_is_no_type_is_refused(q: JobQ, annotation: Any) -> None:
    def odd(x: Any) -> None: ...

    odd.__annotations__["x"] = annotation
    with pytest.raises(TaskDefinitionError, match="odd: "):
        q.task(odd).job(1)


def test_what_does_not_tell_its_parameters_is_refused(q: JobQ) -> None:
    with pytest.raises(TaskDefinitionError, match=r"t: .*(does not tell its parameters|positional-only|no fixed name)"):
        q.task(name="t")(dict.fromkeys)


def test_calling_a_task_calls_its_function(q: JobQ) -> None:
    assert q.task(name="a")(functools.partial(handle, "a"))(item=Item(1)) == "a1"
    assert asyncio.run(q.task(name="b")(AsyncHandler())(item=Item(2))) == 2
    assert asyncio.run(q.task(name="c")(traced(handle_later))("c", Item(3))) == "c3"
