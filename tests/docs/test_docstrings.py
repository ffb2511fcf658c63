"""The examples in docstrings on middleware, resources and workflows run as they stand there."""

from __future__ import annotations

import inspect
import logging
import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from jobq import CurrentJob, JobQ, NodeOutcome, Resource, RunNext, injected, middleware, workflow
from jobq._app import extensions, resources, workflow_rows
from jobq.testing import eager, override_resource, overrides


class Client:
    """What the examples take for granted."""

    def __init__(self, timeout: float = 1) -> None:
        self.paths: list[str] = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None: ...

    def get(self, path: str) -> str:
        self.paths.append(path)
        return path


class Sampled:
    def __init__(self, share: float) -> None: ...

    def run(self, job: CurrentJob, call_next: RunNext) -> Any:
        return call_next(job)

    run_async = None


def examples(documented: object) -> list[str]:
    """Return the blocks that follow a double colon."""
    text = inspect.cleandoc(documented.__doc__ or "")
    return [textwrap.dedent(block) for block in re.findall(r"::\n\n((?: {4}.*(?:\n|$)|\n)+)", text)]


@pytest.mark.parametrize(
    "documented",
    [
        middleware,
        resources,
        extensions.Extensions.middleware,
        extensions.Extensions.resource,
        overrides.override_resource,
    ],
    ids=lambda documented: getattr(documented, "__name__", "middleware"),
)
def test_the_examples_run(documented: object) -> None:
    q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")
    names: dict[str, Any] = {
        "Any": Any,
        "Client": Client,
        "CurrentJob": CurrentJob,
        "Iterator": Iterator,
        "Resource": Resource,
        "RunNext": RunNext,
        "Sampled": Sampled,
        "connection": None,
        "eager": eager,
        "injected": injected,
        "logger": logging.getLogger(__name__),
        "override_resource": override_resource,
        "q": q,
        "time": time,
    }
    if documented is overrides.override_resource:
        [declared] = examples(extensions.Extensions.resource)
        with eager(q):
            exec(declared, names)
        names["FakeClient"] = Client
    found = examples(documented)
    assert found
    for block in found:
        with eager(q) as jobs:
            exec(block, names)
        assert [job.state for job in jobs.jobs if job.state != "succeeded"] == []


def test_the_graphs_in_the_docstring_can_be_inserted() -> None:
    q = JobQ("postgresql://nobody@127.0.0.1:1/nothing")

    @q.task
    def fetch(url: str) -> str:
        return url

    @q.task
    def count(page: str) -> int:
        return len(page)

    @q.task
    def store(url: str, words: int) -> None: ...

    @q.task
    def total(counts: Sequence[int]) -> int:
        return sum(counts)

    @q.task
    def report(words: NodeOutcome[int]) -> None: ...

    names: dict[str, Any] = {
        "q": q, "fetch": fetch, "count": count, "store": store, "total": total, "report": report,
    }  # fmt: skip
    built = []
    for block in examples(workflow):
        exec(block, names)
        workflow_rows.parameters(names["wf"])
        built.append([node.label for node in names["wf"].nodes])
    assert built == [["fetch", "count", "store"], ["count", "total"], ["fetch", "words", "report", "store"]]
