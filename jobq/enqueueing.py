"""The typed methods to enqueue, shared by a task and a task with options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from jobq.job import InsertResult, JobOptions, NewJob
from jobq.jobref import JobRef, JobSource
from jobq.settings import Settings
from jobq.workflow import make_map, make_node
from jobq.workflow.canvas import Canvas, Partial, call
from jobq.workflow.map_results import MapSource
from jobq.workflow.node import Many, Node, NodeTask

if TYPE_CHECKING:
    from jobq._postgres.adapters import AnyAsyncConnection, AnyConnection

P = ParamSpec("P")
Q = ParamSpec("Q")
A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class JobInserter(JobSource, MapSource, Protocol):
    """What a task needs from the application that it belongs to."""

    @property
    def settings(self) -> Settings: ...

    def insert(self, connection: AnyConnection, jobs: Sequence[NewJob]) -> list[InsertResult]: ...

    async def insert_async(self, connection: AnyAsyncConnection, jobs: Sequence[NewJob]) -> list[InsertResult]: ...

    def insert_own(self, jobs: Sequence[NewJob]) -> list[InsertResult]: ...

    async def insert_own_async(self, jobs: Sequence[NewJob]) -> list[InsertResult]: ...


class JobMaker(Protocol[R_co]):
    """What enqueueing needs from a task."""

    @property
    def app(self) -> JobInserter: ...

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> str: ...

    def reference(self, job: NewJob, inserted: InsertResult, /) -> JobRef[R_co]: ...


class TakesFirst(Protocol[A_contra, Q, R]):
    """A task with a first parameter of type A. With ``Enqueues[Concatenate[A, Q], R]``, mypy does not find A."""

    def node(self, first: A_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> Node[R]: ...


class Enqueues(ABC, Generic[P, R]):
    """The methods to enqueue, shared by a task and a task with options.

    All of them raise InvalidArguments at the call if the arguments do not fit the task's signature.
    """

    @property
    @abstractmethod
    def _bound(self) -> tuple[JobMaker[R], JobOptions]:
        """The task, and the options of its jobs."""

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Return a job for ``JobQ.enqueue_many``, which inserts it later together with others."""
        task, options = self._bound
        return NewJob.checked(options, task.encode_arguments(args, kwargs))

    def node(self, /, *args: P.args, **kwargs: P.kwargs) -> Node[R]:
        """Add a node to the workflow that is being built, which runs one job of this task.

        References to other nodes (``other.result``) may stand for arguments, or within them.

        Raises:
            InvalidArguments: the arguments do not fit the task's signature, or a reference's type
                does not fit its parameter.
            WorkflowError: no workflow is being built here, a reference is to a node of another
                workflow, or an option cannot be one of a node (`key`, `run_at`).
        """
        task, options = self._bound
        return make_node(cast("NodeTask", task), options, args, kwargs)

    def map(self: TakesFirst[A, Q, R], items: Iterable[A], /, *args: Q.args, **kwargs: Q.kwargs) -> Many[R]:
        """Add a node that runs one job of this task for each of `items`.

        Args:
            items: an iterable, or a reference to a list, whose elements become the first argument;
                at most 1,000,000.
            *args: the other arguments, the same for each job.
            **kwargs: the other arguments, the same for each job.

        Raises:
            InvalidArguments: an item or an argument does not fit the task's signature.
            WorkflowError: as for `node`; or there are too many items.
        """
        task, options = cast("Enqueues[..., R]", self)._bound
        return make_map(cast("NodeTask", task), options, items, args, kwargs)

    @overload
    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Canvas[R]: ...

    @overload
    def s(self: TakesFirst[A, Q, R], /, *args: Q.args, **kwargs: Q.kwargs) -> Partial[A, R]: ...

    def s(self, /, *args: Any, **kwargs: Any) -> Partial[Any, R]:
        """Describe a call for `jobq.workflow.chain`, `group` and `chord`, as in Celery.

        If it follows another call, its first argument is that one's result, and `args` are the
        others. They are checked when the call is added to a workflow.
        """
        task, options = self._bound
        return cast("Canvas[R]", call(cast("NodeTask", task), options, args, kwargs, immutable=False))

    def si(self, /, *args: P.args, **kwargs: P.kwargs) -> Canvas[R]:
        """Describe a call like `s`, which does not take the result of the call before it."""
        task, options = self._bound
        return cast("Canvas[R]", call(cast("NodeTask", task), options, args, kwargs, immutable=True))

    def enqueue(self, connection: AnyConnection, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job on `connection`, inside its transaction.

        The job runs if and when that transaction commits. This runs one statement, without a commit
        and without a savepoint. An autocommit connection commits at once.

        Args:
            connection: a psycopg Connection, or a SQLAlchemy Connection, Session or scoped_session
                that uses psycopg.
            *args: arguments of the task.
            **kwargs: arguments of the task.

        Raises:
            InvalidArguments: the arguments do not fit the task's signature.
            KeyConflict: the key is held and ``on_conflict="raise"``; or the key has
                ``key_scope="global"`` and another task's job holds it.
            ConnectionNotUsable: the connection is closed, or its transaction has failed.
            UnsupportedConnection: `connection` is anything else, including None. Only `submit` uses
                one of jobq's own connections.
        """
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, task.app.insert(connection, [job])[0])

    async def enqueue_async(self, connection: AnyAsyncConnection, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job on an asynchronous connection, like `enqueue`.

        `connection` is a psycopg AsyncConnection, or a SQLAlchemy AsyncConnection or AsyncSession that uses psycopg.
        """
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, (await task.app.insert_async(connection, [job]))[0])

    def submit(self, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job in a separate transaction, on a connection of jobq's pool.

        Raises DatabaseUnavailable.
        """
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, task.app.insert_own([job])[0])

    async def submit_async(self, /, *args: P.args, **kwargs: P.kwargs) -> JobRef[R]:
        """Insert a job in a separate transaction, like `submit`."""
        task, _ = self._bound
        job = self.job(*args, **kwargs)
        return task.reference(job, (await task.app.insert_own_async([job]))[0])


class TaskOptions(Enqueues[P, R]):
    """A task with options for its jobs. Made by ``task.options(…)``; it can be kept and reused."""

    def __init__(self, task: JobMaker[R], options: JobOptions) -> None:
        self._pair = (task, options)

    @property
    def _bound(self) -> tuple[JobMaker[R], JobOptions]:
        return self._pair

    def __repr__(self) -> str:
        return f"<options of {self._pair[0]!r}>"
