"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from jobq.web import create_app
from jobq.web.serving import close

Conn = psycopg.Connection[Any]


@pytest.fixture
def db(database_url: str) -> Iterator[Conn]:
    """A connection to `database_url` that commits each statement by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def make_app() -> Iterator[Callable[..., Flask]]:
    """`create_app`, which keeps no page unless asked to; what it opened is closed at the end."""
    made: list[Flask] = []

    def make(database_url: str, **options: Any) -> Flask:
        made.append(create_app(database_url=database_url, **{"cache_seconds": 0.0, **options}))
        return made[-1]

    yield make
    for app in made:
        close(app)


@pytest.fixture
def client(make_app: Callable[..., Flask], database_url: str) -> FlaskClient:
    """A browser on the status page of `database_url`."""
    return make_app(database_url).test_client()
