"""Routes: each names the permission that it needs, and none can be registered without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from flask import Blueprint, abort, current_app, request
from werkzeug.exceptions import MethodNotAllowed

from jobq.web.auth import access
from jobq.web.context import current_page


@dataclass(frozen=True, slots=True)
class Route:
    """One address: `view` handles `method` (GET or POST) at `rule`, for users who have the
    permission `needs`.

    A GET route reads, so its permission is one of `access.READING`; a POST route changes something.
    Only login and logout are open to `access.ANYONE`. If a form's field decides about a further
    permission, the view calls `Page.require`.
    """

    rule: str
    method: str
    view: Callable[..., Any]
    needs: str

    def __post_init__(self) -> None:
        where = f"route {self.method} {self.rule}"
        if self.method not in ("GET", "POST"):
            raise ValueError(f"{where}: expected GET or POST")
        if self.needs != access.ANYONE and self.needs not in access.REQUIRED_ROLE:
            raise ValueError(
                f"{where}: needs={self.needs!r} is not a permission; expected one of {', '.join(access.REQUIRED_ROLE)}"
            )
        if (self.needs in access.READING) != (self.method == "GET") and self.needs != access.ANYONE:
            raise ValueError(
                f"{where}: {self.needs} does not fit the method: a GET reads, and a POST needs a permission to change"
            )


_REQUIRED = WeakKeyDictionary[Blueprint, dict[str, str]]()


def required_permissions(mounted: Any) -> dict[str, str]:
    """Return the permission of each endpoint of the blueprint `mounted`."""
    return dict(_REQUIRED.get(mounted, {}))


def register(mounted: Blueprint, routes: Iterable[Route]) -> None:
    """Add `routes` to the blueprint `mounted`, each behind its permission check. The endpoint is
    the view's name.
    """
    _REQUIRED[mounted] = {}
    for route in routes:
        if not isinstance(route, Route):
            raise TypeError(f"{route!r}: expected a Route(rule, method, view, needs)")
        mounted.add_url_rule(route.rule, route.view.__name__, _guarded(route), methods=[route.method])
        _REQUIRED[mounted][route.view.__name__] = route.needs
    mounted.add_url_rule("/<path:anything>", "nothing", _nothing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])


def _guarded(route: Route) -> Callable[..., Any]:
    @wraps(route.view)
    def answer(**values: Any) -> Any:
        page = current_page()
        page.require(route.needs)
        if route.method == "GET":
            return page.cached(lambda: route.view(**values)) if route.needs == "view" else route.view(**values)
        page.form_tokens.check(page.user)
        try:
            return route.view(**values)
        finally:
            # After the commit, and before the response redirects the user to the changed page.
            page.cache.clear()

    return answer


def _nothing(anything: str) -> Any:
    # Every other address and method. Without this rule the host application would handle them.
    current_page().require("view")
    adapter = current_app.create_url_adapter(request)
    assert adapter is not None
    there = [method for method in ("GET", "POST") if adapter.match(method=method)[0] != request.endpoint]
    if there:
        raise MethodNotAllowed(there, f"This address accepts only {there[0]}. Nothing was changed.")
    abort(404)
