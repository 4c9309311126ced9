"""What a source URL says, and how it may be shown.

    place("rtsp://camera/stream")        # Place("network", "rtsp://camera/stream", {})
    redact("rtsp://user:secret@camera/") # 'rtsp://***@camera/'

Nothing here touches the world.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from edgeward.errors import ConfigError, nearest

__all__ = ["Place", "place", "redact"]

Kind = Literal["path", "network", "webcam", "package", "test"]

NETWORK = ("http", "https", "rtsp", "rtsps")
SCHEMES = (*NETWORK, "file", "package", "test", "webcam")

# Two letters at least, so that C:\clip.mp4 stays a path.
_SCHEME = re.compile(r"([a-z][a-z0-9+.\-]+):(//)?", re.IGNORECASE)
# Also where the slashes were forgotten: such a URL is wrong, but the message that says so shows it.
_CREDENTIALS = re.compile(r"^(?!file:)([a-z][a-z0-9+.\-]*:(?://)?).*@", re.IGNORECASE | re.DOTALL)
# Cameras also take credentials as name=value in the query or, some makes, in the path.
_SECRET = re.compile(r"([\w\-]*(?:use?r|login|account|pas|pwd|token|auth|key|secret|sig)[\w\-]*)=[^&;/?#]*", re.I)


@dataclass(frozen=True)
class Place:
    """Where frames come from: `target` is a path, a full URL, a number or a name, as `kind` asks for."""

    kind: Kind
    target: str
    options: Mapping[str, str] = field(default_factory=dict)


def redact(url: str) -> str:
    """The URL without credentials, safe to show.

    All up to the last '@' goes, because a password may itself hold '@' and '/'; so do the values of
    parameters that are named like credentials.

    >>> redact("rtsp://admin:p@ss/word@10.0.0.2/ch1?token=abc")
    'rtsp://***@10.0.0.2/ch1?token=***'
    """
    return _SECRET.sub(r"\1=***", _CREDENTIALS.sub(r"\1***@", url))


def place(url: str) -> Place:
    """Read a source URL; touches nothing.

    Raises ConfigError for an unknown scheme or a form that cannot be right.
    """
    if not url.strip():
        raise ConfigError("the source is empty; give a file, rtsp://..., webcam:0, package://bikes or test://people")
    if url.isascii() and url.isdigit():
        return Place("webcam", url)
    match = _SCHEME.match(url)
    if match is None:
        return Place("path", url)
    scheme, rest = match.group(1).lower(), url[match.end() :]
    if scheme in NETWORK:
        return Place("network", _checked_network(url, scheme))
    if scheme == "file":
        return Place("path", unquote(urlsplit(url).path))
    if scheme == "webcam":
        if not (rest.isascii() and rest.isdigit()):
            raise ConfigError(f"source {url!r}: a webcam is given by its number, as in webcam:0")
        return Place("webcam", rest)
    if scheme in ("package", "test"):
        name, _, query = rest.partition("?")
        return Place(scheme, name, _options(url, query))  # type: ignore[arg-type]
    if match.group(2) is None:  # a file may have a colon in its name
        return Place("path", url)
    raise ConfigError(f"source {redact(url)!r}: unknown scheme {scheme!r}; {nearest(scheme, SCHEMES)}")


def _checked_network(url: str, scheme: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(
            f"source {redact(url)!r}: the host or port is not valid; write {scheme}://host:port/path"
        ) from (None if "@" in url else error)
    if not host:
        raise ConfigError(f"source {redact(url)!r} names no host; write {scheme}://host/path")
    return url


def _options(url: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError(f"source {url!r}: write parameters as name=value&name=value") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ConfigError(f"source {url!r}: a parameter is given twice")
    return options
