"""Resources: found by type, made once in the order of their needs, and no part of a job."""

from __future__ import annotations

import asyncio
import copy
import logging
import operator
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest

from jobq import InvalidArguments, InvalidOption, JobQ, Resource, ResourceNotInjected, TaskDefinitionError, injected
from jobq._worker.runner.event_loop import JobLoop
from jobq._worker.runner.lifecycle import Lifecycle
from jobq.testing import eager, override_resource

URL = "postgresql://nobody@127.0.0.1:1/nothing"
log: list[str] = []


class Client:
    def __init__(self, name: str = "real") -> None:
        self.name = name


class Special(Client): ...


class Pool:
    def __init__(self, client: Client) -> None:
        self.client = client


q = JobQ(URL)


@q.resource
def client() -> Iterator[Client]:
    log.append("client opens")
    yield Client()
    log.append("client closes")


@q.resource
async def pool(client: Resource[Client]) -> AsyncIterator[Pool]:
    log.append("pool opens")
    await asyncio.sleep(0)
    yield Pool(client)
    log.append("pool closes")


@q.resource
def unused() -> Iterator[dict[str, int]]:
    log.append("unused opens")
    yield {}


@q.task
def hello(name: str, client: Resource[Client] = injected) -> str:
    return f"{name} {client.name}"


@q.task
async def hello_async(name: str, *, pool: Resource[Pool] = injected, client: Resource[Client] = injected) -> str:
    assert pool.client is client
    return f"{name} {pool.client.name}"


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


def test_a_resource_is_no_part_of_a_job() -> None:
    assert hello.job("Ann").args_json == '{"name":"Ann"}'
    assert hello_async.arguments.resources == {"pool": Pool, "client": Client}
    for value in (Client(), None):
        with pytest.raises(InvalidArguments, match="client is a resource, which the runner makes"):
            hello.job("Ann", client=value)  # type: ignore[arg-type]
    with pytest.raises(InvalidArguments, match="too many positional arguments"):
        hello.job("Ann", Client())
    with pytest.raises(InvalidArguments, match="client"):
        hello.decode_arguments('{"name": "Ann", "client": {}}')


def test_the_signature_that_workers_compare_does_not_have_it() -> None:
    other = JobQ(URL)

    @other.task
    def hello(name: str) -> str:
        return name

    assert hello.arguments.fingerprint == q.get_task("hello").arguments.fingerprint


def test_a_direct_call_takes_one_and_says_when_it_is_missing() -> None:
    assert hello("Ann", client=Client("mine")) == "Ann mine"
    with pytest.raises(ResourceNotInjected, match="'name' of a resource that was not injected"):
        hello("Ann")


async def _await(value: Any) -> None:
    await value


async def _enter(value: Any) -> None:
    async with value:
        pass


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: injected("/"), "a call of"),
        (lambda: injected[1], "an item of"),
        (lambda: operator.setitem(injected, 1, 2), "an item of"),
        (lambda: 1 in injected, "an item of"),
        (lambda: list(injected), "an iteration of"),
        (lambda: ExitStack().enter_context(injected), "a `with` of"),
        (lambda: setattr(injected, "timeout", 5), "'timeout' of"),
        (lambda: asyncio.run(_await(injected)), "an `await` of"),
        (lambda: asyncio.run(_enter(injected)), "an `async with` of"),
    ],
)
def test_every_use_of_a_missing_one_says_so(use: Callable[[], object], says: str) -> None:
    with pytest.raises(ResourceNotInjected, match=f"^{says} a resource that was not injected: .*pass one in this call"):
        use()
    assert copy.copy(injected) is injected
    assert pickle.loads(pickle.dumps(injected)) is injected
    assert injected


def test_eager_mode_makes_them_at_the_first_use_and_closes_them_in_reverse() -> None:
    with eager(q) as jobs:
        assert log == []
        hello_async.submit("Ann")
        hello.submit("Bob")
        hello_async.submit("Cid")
        assert log == ["client opens", "pool opens"]
    assert [job.result for job in jobs.jobs] == ["Ann real", "Bob real", "Cid real"]
    assert log == ["client opens", "pool opens", "pool closes", "client closes"]


async def test_eager_mode_on_an_event_loop_makes_them_for_each_job_there() -> None:
    with eager(q) as jobs:
        await hello_async.submit_async("Ann")
        assert log == ["client opens", "pool opens", "pool closes", "client closes"]
    assert jobs.jobs[0].result == "Ann real"


def test_tests_override_them() -> None:
    with eager(q) as jobs:
        fake = Client("fake")
        with override_resource(q, client, fake):
            hello.submit("Ann")
            hello_async.submit("Bob")
        with override_resource(q, pool, Pool(fake)), override_resource(q, client, fake):
            hello_async.submit("Cid")
        hello.submit("Dan")
    assert [job.result for job in jobs.jobs] == ["Ann fake", "Bob fake", "Cid fake", "Dan real"]
    with pytest.raises(InvalidOption, match="no resource of this application"), override_resource(q, log.append, None):  # type: ignore[arg-type]
        pass


def life(app: JobQ) -> Lifecycle:
    return Lifecycle(app, JobLoop().run_alone)


def test_a_runner_makes_what_its_tasks_use_and_no_more() -> None:
    loop = JobLoop()
    lifecycle = Lifecycle(q, loop.run_alone)
    lifecycle.start()
    assert log == ["client opens", "pool opens"]
    assert lifecycle.bodies["hello"](name="Ann") == "Ann real"
    assert loop.run_alone(lifecycle.bodies["hello_async"](name="Bob")) == "Bob real"
    lifecycle.stop()
    assert log == ["client opens", "pool opens", "pool closes", "client closes"]


def test_hooks_are_around_resources() -> None:
    app = JobQ(URL)
    calls: list[str] = []

    @app.on_runner_stop
    async def last() -> None:
        calls.append("last")

    @app.on_runner_stop
    def fails() -> None:
        calls.append("fails")
        raise RuntimeError("at the end")

    @app.on_runner_start
    async def on_loop() -> None:
        asyncio.get_running_loop()
        calls.append("runner")

    @app.on_worker_start
    def first() -> None:
        calls.append("worker")

    @app.resource
    def number() -> Iterator[int]:
        calls.append("opens")
        yield 1
        calls.append("closes")

    @app.task
    def task(number: Resource[int] = injected) -> int:
        return number

    for worker, expected in ((True, ["worker", "runner", "opens"]), (False, ["runner", "opens"])):
        calls.clear()
        lifecycle = life(app)
        if worker:
            lifecycle.start_worker()
        lifecycle.start()
        assert calls == expected
        calls.clear()
        lifecycle.stop()
        assert calls == ["closes", "fails", "last"]


def test_a_resource_that_fails_names_itself_and_what_was_made_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    app = JobQ(URL)
    closed: list[str] = []

    @app.resource
    def good() -> Iterator[str]:
        yield "good"
        closed.append("good")
        raise RuntimeError("closing failed")

    @app.resource
    def bad(good: Resource[str]) -> Iterator[int]:
        if good == "good":
            raise ConnectionError(f"no server beside {good}")
        yield 1

    @app.task
    def task(bad: Resource[int] = injected) -> None: ...

    lifecycle = life(app)
    with pytest.raises(ConnectionError, match="no server beside good") as caught:
        lifecycle.start()
    assert caught.value.__notes__ == ["raised while resource bad was being made"]
    with caplog.at_level(logging.ERROR, "jobq.runner"):
        lifecycle.stop()
    assert closed == ["good"]
    assert "resource good raised while it was being closed" in caplog.text


def test_what_is_found_by_type() -> None:
    app = JobQ(URL)

    @app.resource
    def reader() -> Iterator[Client]:
        yield Client("reader")

    @app.resource
    def special() -> Iterator[Special]:
        yield Special("special")

    @app.resource
    def lookup() -> Iterator[dict[str, int]]:
        yield {}

    def names(**wanted: Any) -> list[str]:
        return [found.name for found in app.resources.find(wanted, "it").values()]

    assert names(x=Client, y=Special, z=dict[str, int]) == ["reader", "special", "lookup"]
    assert names(special=object) == ["special"]
    with pytest.raises(TaskDefinitionError, match="resources reader and special are of type object"):
        names(x=object)

    @app.resource
    def writer() -> Iterator[Client]:
        yield Client("writer")

    assert names(writer=Client) == ["writer"]
    with pytest.raises(TaskDefinitionError, match="resources reader and writer are of type Client"):
        names(x=Client)

    class Odd(Protocol):
        size: int

    with pytest.raises(
        TaskDefinitionError, match=r"it: there is no resource of type Odd for x; there are: reader \(Client"
    ):
        names(x=Odd)


def test_a_task_without_its_resource_is_found_when_a_runner_starts() -> None:
    app = JobQ(URL)

    @app.task
    def task(client: Resource[Client] = injected) -> None: ...

    with pytest.raises(TaskDefinitionError, match="task task: there is no resource of type Client for client"):
        life(app)


def test_a_circle_is_found_when_a_runner_starts() -> None:
    app = JobQ(URL)

    @app.resource
    def one(two: Resource[int]) -> Iterator[str]:
        yield ""

    @app.resource
    def two(one: Resource[str]) -> Iterator[int]:
        yield 1

    @app.task
    def task(one: Resource[str] = injected) -> None: ...

    with pytest.raises(TaskDefinitionError, match="circle: one → two → one"):
        life(app)


def _no_generator() -> int:
    return 1


def _unannotated():  # type: ignore[no-untyped-def]
    yield 1


def _parameter(size: int) -> Iterator[int]:
    yield size


def _bare(size) -> Iterator[int]:  # type: ignore[no-untyped-def]
    yield size


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_no_generator, "is no generator function"),
        (_unannotated, "the return annotation is missing"),
        (_bare, "size cannot be filled"),
    ],
)
def test_what_is_no_resource(function: Any, says: str) -> None:
    with pytest.raises(TaskDefinitionError, match=says):
        JobQ(URL).resource(function)


def test_a_resource_takes_only_resources() -> None:
    app = JobQ(URL)
    app.resource(_parameter)

    @app.task
    def task(size: Resource[int] = injected) -> None: ...

    with pytest.raises(TaskDefinitionError, match="resource _parameter: size: 'int' cannot be filled"):
        life(app)


def test_a_name_is_taken_once() -> None:
    app = JobQ(URL)

    def make() -> Any:
        def same() -> Iterator[int]:
            yield 1

        return same

    app.resource(make())
    with pytest.raises(TaskDefinitionError, match="resource 'same' is defined twice"):
        app.resource(make())


def test_one_that_yields_nothing_or_twice(caplog: pytest.LogCaptureFixture) -> None:
    app = JobQ(URL)
    times = 0

    @app.resource
    def odd() -> Iterator[int]:
        for _ in range(times):
            yield 1

    @app.task
    def task(odd: Resource[int] = injected) -> None: ...

    with pytest.raises(TaskDefinitionError, match="resource odd has yielded nothing"):
        life(app).start()
    times = 2
    lifecycle = life(app)
    lifecycle.start()
    with caplog.at_level(logging.ERROR, "jobq.runner"):
        lifecycle.stop()
    assert "it has yielded a second time" in caplog.text


def test_parameters_that_cannot_be() -> None:
    app = JobQ(URL)
    with pytest.raises(TaskDefinitionError, match=r"write client: Resource\[…\] = injected"):

        @app.task
        def without_default(client: Resource[Client]) -> None: ...

    with pytest.raises(TaskDefinitionError, match="annotate it as Resource"):

        @app.task
        def without_annotation(client: Client = injected) -> None: ...

    with pytest.raises(TaskDefinitionError, match="the resource client comes before number"):

        @app.task
        def first(client: Resource[Client] = injected, number: int = 1) -> None: ...


@pytest.mark.parametrize("decorator", ["on_worker_start", "on_runner_start", "on_runner_stop"])
def test_what_is_no_hook(decorator: str) -> None:
    declare = getattr(JobQ(URL), decorator)
    for given, says in (
        (3, "is no function"),
        (Client, "is no function"),
        (lambda job: None, "is called without arguments"),
        (client, "is a generator"),
    ):
        with pytest.raises(TaskDefinitionError, match=f"@q.{decorator}: .*{says}"):
            declare(given)
