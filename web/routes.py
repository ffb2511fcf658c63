"""What a module of views has to say of each of them. A route without its permission cannot be written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from weakref import WeakKeyDictionary

from flask import Blueprint, abort, current_app, request
from werkzeug.exceptions import MethodNotAllowed

from jobq.web import access
from jobq.web.context import current_page


@dataclass(frozen=True, slots=True)
class Route:
    """One address: `view` answers `method` (GET or POST) at `rule`, for those who have the permission `needs`.

    A GET route reads (its permission is one of `access.READING`) and a POST route changes something; only the login and the
    logout are for `access.ANYONE`. `Page.require` in the view asks for more than `needs`, where a form's field decides.
    """

    rule: str
    method: str
    view: Callable[..., Any]
    needs: str

    def __post_init__(self) -> None:
        where = f"route {self.method} {self.rule}"
        if self.method not in ("GET", "POST"):
            raise ValueError(f"{where}: give GET or POST")
        if self.needs != access.ANYONE and self.needs not in access.LEAST_ROLE:
            raise ValueError(
                f"{where}: needs={self.needs!r} is no permission; known are {', '.join(access.LEAST_ROLE)}"
            )
        if (self.needs in access.READING) != (self.method == "GET") and self.needs != access.ANYONE:
            raise ValueError(
                f"{where}: {self.needs} does not fit the method; what changes something is a POST, and needs more"
            )


_NEEDED = WeakKeyDictionary[Blueprint, dict[str, str]]()


def needed(mounted: Any) -> dict[str, str]:
    """Return what each endpoint of `mounted` needs, as it was registered."""
    return dict(_NEEDED.get(mounted, {}))


def register(mounted: Blueprint, routes: Iterable[Route]) -> None:
    """Add `routes` to `mounted`, each behind its check. The endpoint is the view's name."""
    _NEEDED[mounted] = {}
    for route in routes:
        if not isinstance(route, Route):
            raise TypeError(f"{route!r}: routes are Route(rule, method, view, needs)")
        mounted.add_url_rule(route.rule, route.view.__name__, _guarded(route), methods=[route.method])
        _NEEDED[mounted][route.view.__name__] = route.needs
    mounted.add_url_rule("/<path:anything>", "nothing", _nothing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])


def _guarded(route: Route) -> Callable[..., Any]:
    @wraps(route.view)
    def answer(**values: Any) -> Any:
        page = current_page()
        page.require(route.needs)
        if route.method == "GET":
            return page.cached(lambda: route.view(**values)) if route.needs == "view" else route.view(**values)
        page.forms.check(page.user)
        try:
            return route.view(**values)
        finally:
            # After the commit, and before the answer sends the user to look at what has changed.
            page.cache.clear()

    return answer


def _nothing(anything: str) -> Any:
    # Every other address and method: without this rule the host application would answer, in its own words.
    current_page().require("view")
    adapter = current_app.create_url_adapter(request)
    assert adapter is not None
    there = [method for method in ("GET", "POST") if adapter.match(method=method)[0] != request.endpoint]
    if there:
        raise MethodNotAllowed(there, f"This address takes {there[0]} only. Nothing was changed.")
    abort(404)
