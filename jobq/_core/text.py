"""Text for people: counts, lists of names. Every result fits on one line."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 3


def visible(text: str) -> str:
    """Return `text` with every control and direction character escaped, newlines included."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str | None, limit: int = 70) -> str:
    """Return the first line of `text`, cut to `limit` characters."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def brief(value: object, limit: int = 60) -> str:
    """Return `value` for a message, as Python would write it.

    It is on one line, cut to `limit` characters. This never raises an error.
    """
    try:
        # A long text is cut first: escapes beyond the limit would be computed for nothing.
        shown = repr(f"{value[:limit]}…" if isinstance(value, str) and len(value) > limit else value)
    except Exception:  # a number with too many digits, or a user's class
        shown = f"<{type(value).__name__}>"
    return shown if isinstance(value, str) or len(shown) <= limit else f"{shown[:limit]}…"


def unstorable(text: str) -> str | None:
    """Return why PostgreSQL cannot store `text`, and what to do; None if it can.

    The result follows the text's name in a sentence.
    """
    if "\0" in text:
        return "contains a NUL character, which PostgreSQL cannot store: remove it"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "contains a lone surrogate, so it is no Unicode text: decode it strictly, or remove it"
    return None


def name(text: str, limit: int = 60) -> str:
    """Return a name on one line.

    Control characters are escaped, and `limit` characters are kept.
    """
    shown = visible(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def plural(count: int, noun: str) -> str:
    """Return ``1 job`` or ``1,234 jobs``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def be(count: int) -> str:
    """Return ``is`` for one and ``are`` for any other number."""
    return "is" if count == 1 else "are"


def wait(count: int) -> str:
    """Return ``waits`` for one and ``wait`` for any other number."""
    return "waits" if count == 1 else "wait"


def listed(items: Sequence[str], most: int = NAMED) -> str:
    """Return the first `most` items, separated by commas, and the number of remaining items."""
    shown = ", ".join(items[:most])
    return shown + (f" and {len(items) - most:,} more" if len(items) > most else "")
