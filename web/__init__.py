"""The status page: `create_app` for an application of its own, `blueprint` to mount it in yours, `serve` to
run it; `Options` has what can be set, `Identity` is what a host application's `identify` returns.
"""

from __future__ import annotations

from jobq.web.access import Identity
from jobq.web.app import create_app
from jobq.web.mount import blueprint
from jobq.web.options import Options
from jobq.web.serving import serve

__all__ = ["Identity", "Options", "blueprint", "create_app", "serve"]
