"""Limits of a request, and reading of its body within them."""

import asyncio
import zlib
from dataclasses import dataclass

from aiohttp import web

from sparring.serving.errors import Refusal

_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # zlib's wbits


@dataclass(frozen=True)
class Limits:
    """Limits of clients' requests.

    Args:
        body: bytes of a request's body, also when unpacked.
        depth: how deep its JSON may be nested.
        rows: instances of a request.
        concurrency: requests that are answered at the same time; further ones are asked to come
          again.
        seconds: from a request's first byte to its answer.
        idle: seconds in which a connection has to send a request's head, and those in which it may
          stay unused.
        nonfinite: whether NaN and infinities are accepted as inputs and written in replies, as
          TensorFlow Serving does.
        sessions: in memory at a time; further ones are asked to come again.
        session_idle: seconds after which an unused session is forgotten.
    """

    body: int = 6 * 2**20
    depth: int = 32
    rows: int = 1024
    concurrency: int = 256
    seconds: float = 30.0
    idle: float = 60.0
    nonfinite: bool = False
    sessions: int = 10_000
    session_idle: float = 900.0


async def read_body(request: web.Request, limits: Limits) -> bytes:
    """Return the body, unpacked. The client has until the request's time is over.

    Raises:
        Refusal: the body is too large or cannot be unpacked.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity" and encoding not in _WINDOW:
        raise Refusal(
            "UNSUPPORTED_MEDIA_TYPE",
            f"Content-Encoding {encoding}: send gzip, deflate, or plain JSON",
        )
    if (request.content_length or 0) > limits.body:
        raise _too_large(limits)
    parts = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limits.body:
            raise _too_large(limits)
    body = b"".join(parts)
    if encoding == "identity":
        return body
    if len(body) > 2**16:
        return await asyncio.to_thread(_unpacked, body, _WINDOW[encoding], limits)
    return _unpacked(body, _WINDOW[encoding], limits)


def _unpacked(body: bytes, window: int, limits: Limits) -> bytes:
    unpacking = zlib.decompressobj(window)
    try:
        plain = unpacking.decompress(body, limits.body + 1)
    except zlib.error as error:
        raise Refusal("INVALID_ARGUMENT", f"The body cannot be unpacked: {error}") from None
    if len(plain) > limits.body:
        raise _too_large(limits)
    if not unpacking.eof or unpacking.unused_data:
        raise Refusal(
            "INVALID_ARGUMENT",
            "The body cannot be unpacked: it is cut short, or something follows it",
        )
    return plain


def _too_large(limits: Limits) -> Refusal:
    return Refusal("PAYLOAD_TOO_LARGE", f"The body is larger than {limits.body} bytes")
