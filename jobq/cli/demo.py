"""``jobq demo``."""

from __future__ import annotations

from pathlib import Path

import click

from jobq.cli.options import json_option
from jobq.config import read_secret
from jobq.errors import ConfigurationError


@click.command(short_help="Run the example application on an embedded Postgres.")
@click.option(
    "--once",
    is_flag=True,
    show_envvar=True,
    help="Upload the pictures, wait until all is done, print a summary.",
)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path),
    show_envvar=True,
    help="Directory of pictures to upload (default: a small set that the example draws).",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    show_envvar=True,
    help="Port of the gallery on this machine (default: a free one).",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    show_envvar=True,
    help="Directory of its data (default: .jobq, and a temporary one with --once).",
)
@click.option(
    "--database-url",
    metavar="URL",
    allow_from_autoenv=False,
    help="Use this Postgres instead of an embedded one. JOBQ_DATABASE_URL is left alone: the demo makes tables.",
)
@click.option(
    "--database-url-file",
    metavar="PATH",
    allow_from_autoenv=False,
    help="File that holds that URL, which `ps` then does not show; - for standard input.",
)
@json_option
def demo(
    *,
    once: bool,
    photos: Path | None,
    port: int | None,
    home: Path | None,
    database_url: str | None,
    database_url_file: str | None,
    as_json: bool,
) -> None:
    """Run the example application: a photo gallery, its worker, and the status page, on an embedded Postgres.

    Without --once it runs until Ctrl-C. With --once it exits with 0 when every job and file is as expected.
    """
    try:
        from jobq.gallery.demo import run
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"the demo needs {error.name}: pip install 'jobq[demo]'") from error
    if database_url_file is not None:
        database_url = read_secret(database_url_file, "--database-url-file")
    code = run(once=once, photos=photos, as_json=as_json, port=port, home=home, database_url=database_url)
    click.get_current_context().exit(code)
