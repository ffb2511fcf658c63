"""Rendering of our templates, independent of the host application's Jinja settings: above all,
always escaped.
"""

from __future__ import annotations

from typing import Any

from flask import current_app, render_template
from jinja2 import Environment, Undefined, defaults

# The key of our environment, with its compiled templates, in an application's extensions.
_KEPT = "jobq.web templates"


def render(name: str, values: dict[str, Any]) -> str:
    """Return the rendered template ``jobq/<name>``. The host's loaders, functions and filters are
    available to it.
    """
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
