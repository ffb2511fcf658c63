"""Settings and worker options that cannot be used are refused by name, with the value and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, make_url

from jobq import ConfigurationError, JobQ
from jobq._core import json_text
from jobq._worker import WorkerOptions
from jobq.settings import Settings, redact_url, url_of
from jobq.web import Options, blueprint, create_app


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"schema": "a-b"}, "schema='a-b': expected 1 to 63 letters, digits and underscores"),
        ({"pool_size": 0}, "pool_size=0: expected a number of at least 1"),
        ({"max_args_bytes": -1}, "max_args_bytes=-1: expected a number of at least 1"),
        ({"connect_timeout": 0.0}, "connect_timeout=0.0: expected a number of seconds above 0"),
    ],
)
def test_unusable_settings(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + sentence):
        Settings(**settings)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "postgresql+asyncpg://u:secret@h/d",
            r"database_url='postgresql\+asyncpg://u:\*\*\*@h/d' names the driver asyncpg: jobq connects with psycopg",
        ),
        ("postgres+psycopg2://h/d", "database_url=.* names the driver psycopg2: jobq connects with psycopg"),
        ("mysql://h/d", "database_url='mysql://h/d': expected a postgresql:// URL"),
        ("sqlite:///d", "database_url=.*: expected a postgresql:// URL"),
        (make_url("postgresql://u:secret@h/d"), "database_url is of type URL: expected text; .*hide_password=False"),
        (b"postgresql://h/d", "database_url is of type bytes: expected text"),
    ],
)
def test_urls_of_others_are_refused_at_the_making(url: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence) as raised:
        JobQ(url)
    assert "secret" not in str(raised.value)
    with pytest.raises(ConfigurationError, match=sentence.replace("database_url", "direct_url")):
        JobQ("postgresql://h/d", direct_url=url)
    for make in (create_app, blueprint):
        with pytest.raises(
            ConfigurationError, match=sentence if isinstance(url, str) else "expected the database's URL as text"
        ):
            make(url)


@pytest.mark.parametrize(
    "url", ["postgresql://h/d", "postgres://h/d", "postgresql+psycopg://h/d", "host=h dbname=d", "service=shop", ""]
)
def test_urls_that_are_taken(url: str) -> None:
    JobQ(url)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("postgresql://u:secret@h:1/d?sslmode=require", "postgresql://u:***@h:1/d?sslmode=require"),
        (
            "postgresql://u@h/d?password=secret&sslpassword=secret&x=1",
            "postgresql://u@h/d?password=***&sslpassword=***&x=1",
        ),
        ("postgresql://h/d?pass%77ord=secret", "postgresql://h/d?pass%77ord=***"),
        ("postgresql://u@h/d?password=secret#secret", "postgresql://u@h/d?password=***"),
        ("postgresql://u:sec?ret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:sec#ret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:sec/ret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:sec@ret@h/d?host=@x", "postgresql://u:***@h/d?host=@x"),
        ("postgresql://u:secret@[::1/d", "postgresql://u:***@[::1/d"),
        ("postgresql://u@a:1,b:2/d?host=%2Ftmp", "postgresql://u@a:1,b:2/d?host=%2Ftmp"),
        ("host=h sslpassword = secret user=u", "host=h sslpassword = *** user=u"),
        (r"password='it\'s secret' user=u", "password=*** user=u"),
        (r"password=it\ secret user=u", "password=*** user=u"),
        ("user=u password='secret", "user=u password=***"),
        ("oauth_client_secret=secret passfile=/p", "oauth_client_secret=*** passfile=/p"),
    ],
)
def test_no_secret_of_a_url_is_shown(given: str, shown: str) -> None:
    assert redact_url(given) == shown


@pytest.mark.parametrize("make", [create_app, blueprint])
def test_the_page_takes_a_url_or_settings_once(make: Any) -> None:
    make("postgresql://h/d")
    make("postgresql://h/d", schema="other")
    make(JobQ("postgresql://h/d").settings)
    make(database_url="postgresql://h/d")
    for settings in ("postgresql://h/d", JobQ("postgresql://h/d").settings):
        with pytest.raises(ConfigurationError, match=r"excludes|passed twice"):
            make(settings, database_url="postgresql://h/other")
    with pytest.raises(ConfigurationError, match="expected the database's URL as text"):
        make(JobQ("postgresql://h/d"))


@pytest.mark.parametrize(
    "given",
    [
        "user=postgres dbname=d host=/tmp/x port=5433",
        "postgresql://postgres@/d?host=%2Ftmp%2Fa%20b&port=5432",
        "postgresql://u:p%40s%2F@h:55/d?sslmode=disable",
        "postgresql+psycopg://u@[::1]:5/d",
        "postgresql://a:1,b:2/d?target_session_attrs=read-write",
        "user='a b' password='x:@/?#' dbname='d/b' host=h options='-c a=b -c c=d'",
        "host=@abstract dbname=d",
        "postgresql:///d",
        "service=shop",
    ],
)
def test_a_url_says_the_same_as_the_conninfo(given: str) -> None:
    plain = given.replace("+psycopg", "")
    assert conninfo_to_dict(url_of(given)) == conninfo_to_dict(plain)
    assert conninfo_to_dict(url_of(given, dbname="other")) == conninfo_to_dict(plain, dbname="other")
    engine = create_engine(Settings(database_url=given).sqlalchemy_url())
    arguments, options = engine.dialect.create_connect_args(engine.url)
    options.pop("context")
    assert arguments == []
    assert {name: str(value) for name, value in options.items()} == {
        name: str(value) for name, value in conninfo_to_dict(plain).items()
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concurrency": 0}, "concurrency=0: give a number of at least 1"),
        ({"processes": 0}, "processes=0: give a number of at least 1"),
        ({"max_crashes": 0}, "max_crashes=0: give a number of at least 1"),
        ({"poll_interval": 0.0}, "poll_interval=0.0: give a number above 0"),
        ({"keep_failed_days": -1.0}, "keep_failed_days=-1.0: give a number above 0"),
        ({"shutdown_timeout": -1.0}, "shutdown_timeout=-1.0: give a number of seconds, 0 or more"),
        ({"heartbeat_interval": 5.0}, "heartbeat_interval=5.0, suspicion=3.5, lease=30.0: each must be longer"),
        ({"suspicion": 60.0}, "heartbeat_interval=2.0, suspicion=60.0, lease=30.0: each must be longer"),
        ({"queues": ("mail", "")}, "queues='mail,': give names of 1 to 100 characters"),
    ],
)
def test_unusable_worker_options(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match="^" + sentence):
        WorkerOptions(app="shop:q", settings=Settings(), **options)


def test_a_url_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("\n postgresql://ann:secret@db/shop \n")
    env = {"JOBQ_DATABASE_URL_FILE": str(file), "JOBQ_DIRECT_URL_FILE": str(file)}
    found = Settings.load(env)
    assert (found.database_url, found.direct_url) == ("postgresql://ann:secret@db/shop",) * 2
    assert Settings.origins(env)["database_url"][1] == "JOBQ_DATABASE_URL_FILE"
    # What says it outright comes first.
    assert Settings.load(env | {"JOBQ_DATABASE_URL": "postgresql://other/"}).database_url == "postgresql://other/"
    assert Settings.load(env, database_url="postgresql://given/").database_url == "postgresql://given/"


@pytest.mark.parametrize(
    "content", ["", " \n", "postgresql://secret\nanother line", "postgresql://secret" + "x" * 10_000]
)
def test_a_file_that_holds_no_url(tmp_path: Path, content: str) -> None:
    file = tmp_path / "url"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"^JOBQ_DATABASE_URL_FILE=.*has to hold one line") as caught:
        Settings.load({"JOBQ_DATABASE_URL_FILE": str(file)})
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        Settings.load({"JOBQ_DATABASE_URL_FILE": str(tmp_path / "none")})
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="cannot be read: it is not UTF-8 text"):
        Settings.load({"JOBQ_DATABASE_URL_FILE": str(tmp_path / "binary")})


def test_the_pages_secrets_from_files(tmp_path: Path) -> None:
    for name in ("password", "secret_key"):
        (tmp_path / name).write_text(f"the {name}\n")
    env = {f"JOBQ_WEB_{name.upper()}_FILE": str(tmp_path / name) for name in ("password", "secret_key")}
    found = Options.load(env)
    assert (found.password, found.secret_key) == ("the password", "the secret_key")
    assert Options.load(env | {"JOBQ_WEB_PASSWORD": "said"}).password == "said"


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ([1, None, True, 0.5, float("nan")], r"^x\[4\]=nan: JSON has no NaN"),
        ({"a": {"b": "nul \0"}}, r"^x\['a'\]\['b'\] contains a NUL character"),
        ({"a": "\ud800", "b": 1}, r"^x\['a'\] contains a lone surrogate"),
        ({1: "one", "two": object()}, r"^x"),
        ((1, object()), r"^x\[1\] is of type object, which JSON does not have"),
        ([1.5, object()], r"^x\[1\] is of type object"),
        (nested(5000), r"^x is nested more than 500 deep"),
    ],
)
def test_what_json_cannot_hold(value: Any, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        json_text.encode(value, "x")
