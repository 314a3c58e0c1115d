"""Middleware of every request: idle connections, keys, limits, errors as JSON, and the log."""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from sparring.serving import request_context
from sparring.serving.api_keys import Keys
from sparring.serving.errors import CODES, Refusal
from sparring.serving.metrics import Instruments
from sparring.serving.request_limits import Limits

_log = logging.getLogger("sparring.serve")
# Paths answered without a key, and under any load
_OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
# Methods counted by name: every other word would be a new row of the metrics for ever
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
_STATUS = {code: status for status, code in CODES.items()}
_GONE = (ConnectionError, web.RequestPayloadError)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connections:
    """Timers that close connections without a request.

    A connection is closed `seconds` after it was opened, or after its last answer, if no request
    begins.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # A connection that is gone stays here until its time is over
        self._timers: dict[Any, asyncio.TimerHandle] = {}

    def idle(self, protocol: Any) -> Any:
        """Start the timer of a connection that waits for a request, and return the connection."""
        self.busy(protocol)
        self._timers[protocol] = asyncio.get_running_loop().call_later(
            self.seconds, self._expire, protocol
        )
        return protocol

    def _expire(self, protocol: Any) -> None:
        del self._timers[protocol]
        protocol.force_close()

    def busy(self, protocol: Any) -> None:
        """Stop the timer of a connection on which a request has begun."""
        timer = self._timers.pop(protocol, None)
        if timer is not None:
            timer.cancel()


class Guard:
    """Guard of all requests, as a middleware.

    Args:
        limits: of requests and connections.
        counts: the metrics.
        keys: the accepted keys; None: every client that reaches the port, which is then this
          machine's alone.
        hosts: the names under which this machine's own clients may ask, against web pages that
          resolve their own name to it; None: any.
        log_all: whether successful requests are logged too.
    """

    def __init__(
        self,
        limits: Limits,
        counts: Instruments,
        keys: Keys | None,
        hosts: frozenset[str] | None,
        log_all: bool = True,
    ) -> None:
        self.limits = limits
        self.counts = counts
        self.keys = keys
        self.hosts = hosts
        self.log_all = log_all
        self.connections = Connections(limits.idle)
        self._answering = 0

    def middleware(self) -> Any:
        """Return the middleware for `web.Application(middlewares=[...])`."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.connections.busy(request.protocol)
            started = time.perf_counter()
            known = request_context.begin(id=_identifier(request))
            response = await self._answer(request, handler)
            self._account(request, response, known, time.perf_counter() - started)
            response.headers["X-Request-ID"] = known["id"]
            self.connections.idle(request.protocol)
            return response

        return guarded

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        free = request.path in _OPEN
        self._count(not free)
        try:
            if not free:
                self._admit(request)
            async with asyncio.timeout(self.limits.seconds):
                return await handler(request)
        except Refusal as refusal:
            return _error(request, refusal)
        except web.HTTPException as error:  # from the router: no such path, or no such method there
            status = _STATUS.get(error.status, "INVALID_ARGUMENT")
            return _error(
                request, Refusal(status, f"{error.reason}: {request.method} {request.path[:200]}")
            )
        except TimeoutError:
            late = (
                "DEADLINE_EXCEEDED"
                if request.content.at_eof() or not request.can_read_body
                else "REQUEST_TIMEOUT"
            )
            return _error(
                request, Refusal(late, f"Not done within {self.limits.seconds:g} seconds")
            )
        except _GONE as error:
            return _error(
                request, Refusal("INVALID_ARGUMENT", f"The body did not arrive whole: {error}")
            )
        except Exception as error:
            return self._failed(request, error)
        finally:
            self._count(-(not free))

    def _count(self, change: int) -> None:
        self._answering += change
        self.counts.in_flight.values[()] = self._answering

    def _failed(self, request: web.Request, error: Exception) -> web.Response:
        """Return the response to an exception of the model or of the service.

        If TensorFlow blames the request, its message is passed on; otherwise the client learns
        little.
        """
        status = {3: "INVALID_ARGUMENT", 8: "RESOURCE_EXHAUSTED", 12: "UNIMPLEMENTED"}.get(
            getattr(error, "error_code", 0)
        )
        if status is not None:
            return _error(request, Refusal(status, " ".join(str(error).split())[:300]))
        request_context.note(failed=type(error).__name__)
        _log.error("failed", exc_info=error, extra={"path": request.path})
        return _error(request, Refusal("INTERNAL", "Internal error, of which the log says more"))

    def _admit(self, request: web.Request) -> None:
        if self.hosts is not None and _host(request) not in self.hosts:
            raise Refusal("PERMISSION_DENIED", "This server answers under localhost only")
        if self.hosts is not None and _of_a_page(request, self.hosts):
            raise Refusal(
                "PERMISSION_DENIED", "This server answers programs of this machine, no web pages"
            )
        if self.keys is not None:
            owner = self.keys.owner(_presented(request))
            request_context.note(key=owner)
            if owner is None:
                raise Refusal("UNAUTHENTICATED", "Give an API key: Authorization: Bearer KEY")
        if self._answering > self.limits.concurrency:
            raise Refusal(
                "RESOURCE_EXHAUSTED",
                f"{self.limits.concurrency} requests are being answered: come again",
            )

    def _account(
        self,
        request: web.Request,
        response: web.StreamResponse,
        known: dict[str, Any],
        seconds: float,
    ) -> None:
        self.counts.http.add(
            request.method if request.method in METHODS else "other", str(response.status)
        )
        if "version" in known and request.path.endswith(":predict"):
            self.counts.requests.add(known["model"], known.get("status", "OK"))
            self.counts.latency.add(1e6 * seconds, known["model"], "Predict", "REST")
        if request.path in _OPEN or (response.status < 400 and not self.log_all):
            return
        which = {
            "method": request.method,
            "path": request.path,
            "code": response.status,
            "client": request.remote,
        }
        _log.info("request", extra=which | known | {"ms": round(1e3 * seconds, 3)})


def _error(request: web.Request, refusal: Refusal) -> web.Response:
    request_context.note(status=refusal.status, error=str(refusal))
    headers = {
        "UNAUTHENTICATED": {"WWW-Authenticate": "Bearer"},
        "RESOURCE_EXHAUSTED": {"Retry-After": "1"},
    }
    response = web.json_response(
        {"error": str(refusal)}, status=refusal.code, headers=headers.get(refusal.status)
    )
    if not request.content.at_eof() and request.can_read_body:
        response.force_close()  # the rest of the body would be taken for the next request
    return response


def _presented(request: web.Request) -> str:
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")


def _host(request: web.Request) -> str:
    return re.sub(r":[0-9]+\Z", "", request.headers.get("Host", "localhost")).lower()


def _of_a_page(request: web.Request, hosts: frozenset[str]) -> bool:
    """Return whether a browser says that it asks on behalf of a page from elsewhere."""
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).hostname not in hosts
    return foreign or request.headers.get("Sec-Fetch-Site") == "cross-site"


def _identifier(request: web.Request) -> str:
    given = request.headers.get("X-Request-ID", "")
    return given if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", given) else secrets.token_hex(8)
