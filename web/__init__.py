"""The status page.

`create_app` returns it as a Flask application, `blueprint` returns it for mounting in another
application, and `serve` runs an application. `Options` lists the settings. A host application's
`identify` function returns an `Identity`.
"""

from __future__ import annotations

from jobq.web.app import create_app
from jobq.web.auth.access import Identity
from jobq.web.blueprint import blueprint
from jobq.web.options import Options
from jobq.web.server import serve

__all__ = ["Identity", "Options", "blueprint", "create_app", "serve"]
