"""Identify failures with the same cause: an error text without the parts that vary between jobs.

These are pure functions, for the page's groups and for the filter ``failure:``. Only the beginning
of an error is used, so a query may cut it in the database:
``normalise(error) == normalise(error[:REACH])``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2s

# Number of characters of an error that are used, and of those only the first line.
REACH = 300

_NUMBER = r"\d+(?:\.\d+)*(?:[eE][+-]?\d+\b)?"
_NUMBERS = rf"{_NUMBER}(?:,\ ?-?{_NUMBER})*"

# The variable parts of a text. They are tried in this order, at the beginning of a word or
# outside words; inside a word, only a number matches. Names of code and database objects stay, even
# in quotes, because they identify the cause. The first character decides which part can match, so
# the time is linear in the length of the text.
_VARIABLE = re.compile(
    rf"""
    (?<!\w)(?:
      (?P<name>'\w+'\ object\ (?:has\ no\ attribute\ '\w+'|is\ not\ \w+)
        |(?:named|name|argument:?|attribute|column|relation|constraint|table|function|type)\ (?:'[\w.]+'|"[\w.]+"))
    | (?P<text>'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|“[^”]*(?:”|\Z)|«[^»]*(?:»|\Z))
    | (?P<url>(?:https?|ftp|wss?|s3|gs|redis|amqps?|postgres(?:ql)?)://[^\s'"<>)\]]+)
    | (?P<uuid>[0-9a-fA-F]{{8}}-?(?:[0-9a-fA-F]{{4}}-?){{3}}[0-9a-fA-F]{{12}}\b)
    | (?P<time>\d{{4}}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z\b|\ ?[+-]\d\d(?::?\d\d)?)?)?
        |\d?\d:\d\d:\d\d(?:[.,]\d+)?)
    | (?P<host>\d{{1,3}}(?:\.\d{{1,3}}){{3}}\b(?::\d+)?
        |(?<!:)\[?(?=:*[0-9a-fA-F])(?:[0-9a-fA-F]{{0,4}}:){{2,7}}[0-9a-fA-F]{{0,4}}(?![\w:])(?:\](?::\d+)?)?)
    | (?P<mail>(?<![.+-])[\w.+-]{{1,64}}+@[\w-]+(?:\.[\w-]+)+)
    | (?P<path>(?<![<>/.~])(?:~|\.\.?)?/[\w.@%+=~-]+(?:/[\w.@%+=~-]+)*/?|[A-Za-z]:\\[^\s:*?"<>|]+)
    | (?P<hex>0[xX][0-9a-fA-F]+\b|(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{{6,}}\b)
    | (?P<id>(?<!-)(?=[A-Za-z_-]*\d+[A-Za-z_-]+\d)[\w-]{{12,}})
    | (?P<signed>[+-]?{_NUMBERS})
    )
    | (?<=\w)(?P<number>{_NUMBERS})
    """,
    re.VERBOSE,
)
_NUMERIC = ("number", "signed")
_ONE_DIGIT = str.maketrans("023456789", "111111111")
_CHANGING = re.compile(r"[^/\\]*\d[^/\\]*")


def normalise(error: str | None) -> str:
    """Return the first line of `error`, with placeholders for variable parts.

    The result has at most about 1,000 characters. Numbers become ``<n>``; other placeholders are
    ``<text>`` (in quotes), ``<uuid>``, ``<time>``, ``<host>``, ``<mail>``, ``<hex>``, ``<id>``. In
    a path or URL, the parts with a digit are replaced. No error gives the empty text.
    """
    return _normalised(_first_line(error))


def fingerprint(task: str, error: str | None) -> str:
    """Return the failure group of a job of `task` that ended with `error`: 12 hexadecimal digits.

    The same cause always gives the same digits, in every process. Links to a group stay valid as
    long as this module does not change.
    """
    # All digits become one digit: most errors of a group are then one text, found in the cache.
    # Text after 0x is left unchanged.
    line = _first_line(error)
    return _digest(task, line if "0x" in line or "0X" in line else line.translate(_ONE_DIGIT))


@lru_cache(maxsize=16_384)
def _digest(task: str, line: str) -> str:
    text = f"{task}\0{_normalised(line)}"
    return blake2s(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _first_line(error: str | None) -> str:
    return error[:REACH].strip().partition("\n")[0] if error else ""


def _normalised(line: str) -> str:
    return " ".join(_VARIABLE.sub(_placeholder, line).split())


def _placeholder(match: re.Match[str]) -> str:
    kind = match.lastgroup
    found = match[0]
    if kind == "name":
        return found
    if kind == "path":
        return _steady_path(found)
    if kind == "url":
        scheme, _, rest = found.partition("://")
        host, slash, path = rest.partition("/")
        host = host.rpartition("@")[2]  # drops the password
        return f"{scheme}://{_CHANGING.sub('<host>', host)}" + (
            _steady_path(slash + path.partition("?")[0]) if slash else ""
        )
    return f"<{'n' if kind in _NUMERIC else kind}>"


def _steady_path(path: str) -> str:
    if path.startswith(("/tmp/", "/var/tmp/", "/var/folders/")):  # noqa: S108  # recognised, not used
        return "<path>"
    return _CHANGING.sub("<n>", path)
