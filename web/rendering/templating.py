"""Our templates as we wrote them, whatever the host application has set for its own: above all they are always escaped."""

from __future__ import annotations

from typing import Any

from flask import current_app, render_template
from jinja2 import Environment, Undefined, defaults

# Where an application keeps our environment, with the templates that it has compiled.
_KEPT = "jobq.web templates"


def render(name: str, values: dict[str, Any]) -> str:
    """Return the template ``jobq/<name>`` with `values`. The host's loaders, functions and filters are there."""
    return render_template(_environment().get_template(f"jobq/{name}"), **values)


def _environment() -> Environment:
    found: Environment | None = current_app.extensions.get(_KEPT)
    if found is None:
        found = current_app.extensions[_KEPT] = current_app.jinja_env.overlay(
            block_start_string=defaults.BLOCK_START_STRING,
            block_end_string=defaults.BLOCK_END_STRING,
            variable_start_string=defaults.VARIABLE_START_STRING,
            variable_end_string=defaults.VARIABLE_END_STRING,
            comment_start_string=defaults.COMMENT_START_STRING,
            comment_end_string=defaults.COMMENT_END_STRING,
            line_statement_prefix=None,
            line_comment_prefix=None,
            trim_blocks=False,
            lstrip_blocks=False,
            undefined=Undefined,
            finalize=None,
            autoescape=True,
        )
    return found
