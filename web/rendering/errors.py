"""Error responses: pages, or JSON below ``/api``. Each says what is wrong and how to fix it."""

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
    WorkflowNotFound,
)
from jobq.web.context import wants_json
from jobq.web.rendering import formatting

logger = logging.getLogger("jobq.web")

_GONE = "The database cannot be reached. Jobs are safe in it; this page works again as soon as the database does."
_SLOW = "The query took too long and was cancelled. Nothing was changed. Try again, or narrow the filter."
_TITLES = {
    400: "Invalid request",
    401: "Log in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    413: "Too large",
    429: "Too many attempts",
    500: "Internal error",
    503: "Database unavailable",
}


def install(target: Blueprint | Flask) -> None:
    """Register our error responses for the exceptions of `target`."""
    target.register_error_handler(HTTPException, _http)
    target.register_error_handler(JobNotFound, _not_found)
    target.register_error_handler(OperationNotFound, _not_found)
    target.register_error_handler(OperationRefused, _refused)
    target.register_error_handler(UnknownQueue, _not_found)
    target.register_error_handler(UnknownSchedule, _not_found)
    target.register_error_handler(WorkflowNotFound, _not_found)
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
        text = "The request is larger than any form of this page. Nothing was changed."
    if error.code == 500:
        text = "The status page could not handle this request. The server's log has the traceback."
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
    return _answer(400, "The database rejected one of the values.")


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
        # No tables, or those of an older revision.
        text = f"The schema “{schema}” does not contain all of jobq's tables. Run “jobq migrate”."
    elif isinstance(error, psycopg.errors.UndefinedColumn | psycopg.errors.UndefinedFunction):
        text = f"The tables in schema “{schema}” do not fit this version of jobq. Run “jobq migrate”."
    elif isinstance(error, psycopg.errors.InsufficientPrivilege):
        text = "The page's database role lacks a right. Grant it jobq's operator or viewer rights."
    else:
        raise error
    logger.warning("the status page cannot use the database: %s", error)
    return _answer(503, text, title="Not set up")


def _answer(code: int, text: str, *, title: str | None = None) -> Response:
    if wants_json():
        response = jsonify({"error": text, "status": code})
    elif "jobq_page" in g:
        title = title or _TITLES.get(code) or _phrase(code)
        response = make_response(g.jobq_page.render("error.html", code=code, title=title, text=text))
    else:
        response = Response(f"{code} {_phrase(code)}. {formatting.visible(text)}\n", mimetype="text/plain")
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
