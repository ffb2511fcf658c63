"""The status page: `create_app` for an application of its own, `blueprint` to mount it in yours, `serve` to
run it.
"""

from __future__ import annotations

from jobq.web.app import create_app, serve
from jobq.web.page import blueprint

__all__ = ["blueprint", "create_app", "serve"]
