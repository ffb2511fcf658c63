"""Tools for development: an embedded Postgres, and the supervisor and reloader behind ``jobq dev``.

Not for production: any process that can reach the embedded server's socket is its superuser.
"""

from __future__ import annotations

from jobq.dev.postgres import DevPostgres
from jobq.dev.programs import bindir, drop_privileges, reachable_bindir

__all__ = ["DevPostgres", "bindir", "drop_privileges", "reachable_bindir"]
