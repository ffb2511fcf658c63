"""From exceptions to pages, or to JSON below ``/api``: one sentence that says what is wrong and what repairs
it.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import psycopg
from flask import Blueprint, Flask, Response, g, jsonify, make_response, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge, TooManyRequests

from jobq.errors import (
    READ_ONLY,
    InvalidOption,
    JobNotFound,
    OperationNotFound,
    OperationRefused,
    UnknownQueue,
    UnknownSchedule,
)
from jobq.web import show
from jobq.web.context import for_programs

logger = logging.getLogger("jobq.web")

_GONE = "The database cannot be reached at the moment. Jobs are safe in it; this page returns with it."
_SLOW = "The database took too long for this and was stopped; nothing was changed. Try again, or narrow the filter."
_TITLES = {
    400: "That cannot be",
    401: "Log in",
    403: "Refused",
    404: "Not found",
    405: "Not like this",
    413: "Too large",
    429: "Too many tries",
    500: "A fault of ours",
    503: "No database",
}


def install(target: Blueprint | Flask) -> None:
    """Answer the exceptions of `target` with our pages."""
    target.register_error_handler(HTTPException, _http)
    target.register_error_handler(JobNotFound, _not_found)
    target.register_error_handler(OperationNotFound, _not_found)
    target.register_error_handler(OperationRefused, _refused)
    target.register_error_handler(UnknownQueue, _not_found)
    target.register_error_handler(UnknownSchedule, _not_found)
    target.register_error_handler(InvalidOption, _bad)
    target.register_error_handler(psycopg.DataError, _bad_data)
    target.register_error_handler(psycopg.errors.ReadOnlySqlTransaction, _read_only)
    target.register_error_handler(psycopg.OperationalError, _unavailable)
    target.register_error_handler(psycopg.ProgrammingError, _no_tables)


def _http(error: HTTPException) -> Response:
    if error.code is None or error.code < 400:
        return make_response(error.get_response(request.environ))
    text = error.description or ""
    if error.code == 404 and text == type(error).description:
        text = "There is nothing at this address."
    if isinstance(error, RequestEntityTooLarge):
        text = "That is larger than any form of this page. Nothing was changed."
    if error.code == 500:
        text = "jobq's page failed to answer; the server's log says why."
    response = _answer(error.code, text)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(error.valid_methods)
    if isinstance(error, TooManyRequests) and error.retry_after:
        response.headers["Retry-After"] = str(error.retry_after)
    if error.code == 401 and g.get("jobq_ask_password"):
        response.headers["WWW-Authenticate"] = 'Basic realm="jobq", charset="UTF-8"'
    return response


def _not_found(error: Exception) -> Response:
    return _answer(404, _sentence(error))


def _bad(error: Exception) -> Response:
    return _answer(400, _sentence(error))


def _refused(error: Exception) -> Response:
    return _answer(409, _sentence(error))


def _bad_data(error: Exception) -> Response:
    logger.info("the database refused a value", exc_info=error)
    return _answer(400, "The database cannot take one of the values given.")


def _unavailable(error: Exception) -> Response:
    if isinstance(error, psycopg.errors.QueryCanceled):
        return _answer(503, _SLOW, title="Too slow")
    logger.warning("the status page cannot reach the database: %s", error)
    return _answer(503, _GONE)


def _read_only(error: Exception) -> Response:
    logger.warning("the status page cannot change anything: %s", error)
    return _answer(503, f"Nothing was changed: {READ_ONLY}.", title="Read-only")


def _no_tables(error: Exception) -> Response:
    schema = g.jobq_page.settings.schema if "jobq_page" in g else "jobq"
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        # None at all, or those of an older revision.
        text = f"The database has not all of jobq's tables in its schema “{schema}”. Run “jobq migrate”."
    elif isinstance(error, psycopg.errors.UndefinedColumn | psycopg.errors.UndefinedFunction):
        text = f"The tables in schema “{schema}” are not those that this jobq needs. Run “jobq migrate”."
    elif isinstance(error, psycopg.errors.InsufficientPrivilege):
        text = "The database role of this page may not do that: grant it jobq's operator or viewer rights."
    else:
        raise error
    logger.warning("the status page cannot use the database: %s", error)
    return _answer(503, text, title="Not set up")


def _answer(code: int, text: str, *, title: str | None = None) -> Response:
    if for_programs():
        response = jsonify({"error": text, "status": code})
    elif "jobq_page" in g:
        title = title or _TITLES.get(code) or _phrase(code)
        response = make_response(g.jobq_page.render("error.html", code=code, title=title, text=text))
    else:
        response = Response(f"{code} {_phrase(code)}. {show.visible(text)}\n", mimetype="text/plain")
    response.status_code = code
    if code == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    return response


def _phrase(code: int) -> str:
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return "Error"


def _sentence(error: Any) -> str:
    text = str(error)
    return text[:1].upper() + text[1:] + "."
