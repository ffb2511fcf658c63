"""What a runner says it is doing while it makes and closes resources, for the log of a start or an end that takes long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from jobq import JobQ, Resource
from jobq._worker.runner.event_loop import JobLoop
from jobq._worker.runner.open_resources import OpenResources

URL = "postgresql://nobody@127.0.0.1:1/nothing"


def made_by(app: JobQ) -> tuple[OpenResources, JobLoop]:
    loop = JobLoop()
    return OpenResources(app.resources, loop.run_alone), loop


def test_it_says_so_only_meanwhile() -> None:
    app = JobQ(URL)
    said: list[str] = []

    @app.resource
    def first() -> Iterator[str]:
        said.append(resources.doing)
        yield "first"
        said.append(resources.doing)

    @app.resource
    async def second(first: Resource[str]) -> AsyncIterator[int]:
        said.append(resources.doing)
        yield len(first)
        said.append(resources.doing)

    resources, _ = made_by(app)
    resources.open(app.resources.find({"it": int}, "it").values())
    assert (said, resources.doing) == (["making resource first", "making resource second"], "")
    said.clear()
    resources.close()
    assert (said, resources.doing) == (["closing resource second", "closing resource first"], "")


@pytest.mark.parametrize("on_loop", [False, True])
def test_one_that_fails_is_not_being_made_any_more(on_loop: bool) -> None:
    """Else the runner would log, when its functions for the end take too long, that it still made the resource."""
    app = JobQ(URL)

    @app.resource
    def bad() -> Iterator[int]:
        yield int("no number")

    resources, loop = made_by(app)
    wanted = app.resources.find({"it": int}, "it").values()
    with pytest.raises(ValueError, match="no number"):
        loop.run_alone(resources.open_async(wanted)) if on_loop else resources.open(wanted)
    assert resources.doing == ""
