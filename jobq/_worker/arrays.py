"""Arrays in PostgreSQL's text form. psycopg would format them item by item in Python."""

from __future__ import annotations


def numbers(values: list[int] | list[float]) -> str:
    """Return an array of numbers in PostgreSQL's text form."""
    return "{" + ",".join(map(str, values)) + "}"


def texts_array(texts: list[str]) -> str:
    """Return an array of texts in PostgreSQL's text form."""
    # Both characters are rare, and a replacement without a match costs little.
    escaped = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return '{"' + '","'.join(escaped) + '"}' if escaped else "{}"
