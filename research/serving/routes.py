"""Routes of the service: TensorFlow Serving's, images, health and metrics."""

import asyncio
import logging
import re
import secrets
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from aiohttp import web

from sparring.serving import metrics, request_context, rest_api
from sparring.serving.batching import Arrays, Batcher
from sparring.serving.errors import Refusal
from sparring.serving.metrics import Instruments
from sparring.serving.model import Servable, Signature
from sparring.serving.model_repository import Shelf
from sparring.serving.request_limits import Limits, read_body
from sparring.serving.sessions import STATE, Sessions, remembers

_log = logging.getLogger("sparring.serve")
_MODEL = re.compile(
    r"(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]{1,18})|/labels/(?P<label>[^/:]+))?"
    r"(?::(?P<verb>[a-z]+)|(?P<metadata>/metadata))?"
)
QUICK = 5e-4  # calls of fewer seconds run in the event loop, where a thread would only add cost
_LARGE = 2**16  # larger bodies of JSON are read in a thread, to keep others from waiting


class Service:
    """Answers to requests for the models of a shelf.

    Args:
        shelf: the models.
        limits: of requests.
        counts: the metrics.
        threads: that run models.
        batch: rows of a batch at most, and the seconds a request waits for others; None: every
          request by itself.
    """

    def __init__(
        self,
        shelf: Shelf,
        limits: Limits,
        counts: Instruments,
        threads: int,
        batch: tuple[int, float] | None,
    ) -> None:
        self.shelf = shelf
        self.limits = limits
        self.counts = counts
        self.batch = batch
        self.executor = ThreadPoolExecutor(threads, "model")
        self._batchers: weakref.WeakKeyDictionary[Servable, dict[str, Batcher]] = (
            weakref.WeakKeyDictionary()
        )
        self.sessions = Sessions(limits, self.call)
        self.draining = False

    def routes(self) -> list[web.RouteDef]:
        """Return the routes with their handlers."""
        return [
            *(web.get(path, self._live) for path in ("/healthz", "/v2/health/live")),
            *(web.get(path, self._ready) for path in ("/readyz", "/v2/health/ready")),
            web.get("/v2/models/{name}/ready", self._model_ready),
            *(
                web.get(path, self._metrics)
                for path in ("/metrics", "/monitoring/prometheus/metrics")
            ),
            web.route("*", "/v1/models/{rest:.*}", self._models),
        ]

    # ---- health and metrics ----------------------------------------------------------------------

    async def _live(self, request: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, request: web.Request) -> web.Response:
        ready = self.shelf.ready and not self.draining
        return web.json_response({"ready": ready}, status=200 if ready else 503)

    async def _model_ready(self, request: web.Request) -> web.Response:
        servable = self.shelf.find(request.match_info["name"])
        return web.json_response({"name": servable.name, "ready": True})

    async def _metrics(self, request: web.Request) -> web.Response:
        loaded = {name: sorted(model.loaded) for name, model in list(self.shelf.models.items())}
        self.counts.versions.values = metrics.versions(loaded)
        self.counts.sessions.values[()] = len(self.sessions)
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(text=self.counts.text(), headers=headers)

    # ---- models ----------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.Response:
        meant = _MODEL.fullmatch(request.match_info["rest"])
        if meant is None:
            raise _malformed(request)
        which = (meant["name"], int(meant["version"]) if meant["version"] else None, meant["label"])
        request_context.note(model=meant["name"])
        match request.method, meant["verb"], meant["metadata"]:
            case "GET" | "HEAD", None, None:
                return web.json_response(self.shelf.status(*which))
            case "GET" | "HEAD", None, _:
                return web.json_response(_metadata(self._find(which)))
            case "POST", "predict", None:
                return await self._predict(request, which)
            case "GET", "png", None:
                return await self._png(request, which)
            case "POST", "classify" | "regress" as verb, None:
                self._find(which)
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f"No signature of this model is for :{verb}; all are for :predict",
                )
        raise _malformed(request)

    def _find(self, which: tuple[str, int | None, str | None]) -> Servable:
        servable = self.shelf.find(*which)
        request_context.note(version=servable.version)
        return servable

    async def _predict(
        self, request: web.Request, which: tuple[str, int | None, str | None]
    ) -> web.Response:
        body = await read_body(request, self.limits)
        servable = self._find(which)
        if len(body) <= _LARGE:
            query, signature, arrays = self._read(servable, body)
        else:
            query, signature, arrays = await asyncio.to_thread(self._read, servable, body)
        request_context.note(signature=signature.name)
        headers = {}
        if query.session is None:
            outputs = await self.call(servable, signature, arrays)
        else:
            outputs, step = await self.sessions.step(servable, signature, arrays, query)
            headers["X-Session-Step"] = str(step)
        finite = not self.limits.nonfinite
        if sum(array.nbytes for array in outputs.values()) <= _LARGE:
            text = rest_api.reply(outputs, query.rows, finite)
        else:
            text = await asyncio.to_thread(rest_api.reply, outputs, query.rows, finite)
        return web.Response(body=text, content_type="application/json", headers=headers)

    def _read(self, servable: Servable, body: bytes) -> tuple[rest_api.Query, Signature, Arrays]:
        query = rest_api.read(body, self.limits.depth)
        signature = servable.signatures.get(query.signature)
        if signature is None:
            raise Refusal(
                "INVALID_ARGUMENT",
                f'Serving signature name: "{query.signature[:64]}" not found in signature def',
            )
        takes = signature.takes
        if query.session is not None:
            if not remembers(servable, signature):
                raise Refusal(
                    "INVALID_ARGUMENT", f"{signature.name} has no state that a session could keep"
                )
            takes = {name: spec for name, spec in takes.items() if name != STATE}
        return query, signature, rest_api.inputs(query, takes, not self.limits.nonfinite)

    async def call(
        self, servable: Servable, signature: Signature, arrays: Arrays
    ) -> dict[str, np.ndarray]:
        """Return the outputs of a signature, computed in a batch with simultaneous requests.

        Raises:
            Refusal: the inputs have different numbers of rows, or too many.
        """
        rows = {len(array) if array.ndim else 0 for array in arrays.values()}
        if signature.batched and (len(rows) != 1 or min(rows) < 1):
            raise Refusal(
                "INVALID_ARGUMENT",
                f"The inputs have {sorted(rows)} rows: give as many of each, and one at least",
            )
        if max(rows, default=0) > self.limits.rows:
            raise Refusal(
                "INVALID_ARGUMENT", f"{max(rows)} instances; a request may have {self.limits.rows}"
            )
        request_context.note(rows=max(rows, default=0))
        return await self._batcher(servable, signature)(arrays, max(rows, default=1))

    def _batcher(self, servable: Servable, signature: Signature) -> Batcher:
        known = self._batchers.setdefault(servable, {})
        if signature.name not in known:
            rows, delay = self.batch if self.batch is not None and signature.batched else (1, 0.0)

            def seen(rows: int, waited: float, ran: float) -> None:
                self.counts.runtime.add(1e6 * ran, servable.name, "Predict", "TF2")
                self.counts.queuing.add(1e6 * waited, servable.name)
                self.counts.batches.add(rows, servable.name)

            known[signature.name] = Batcher(
                signature.call, self.executor, rows, delay, signature.seconds < QUICK, seen
            )
        return known[signature.name]

    async def _png(
        self, request: web.Request, which: tuple[str, int | None, str | None]
    ) -> web.Response:
        servable = self._find(which)
        signature = servable.signatures.get("png")
        if signature is None:
            raise Refusal(
                "INVALID_ARGUMENT", f"{servable.name} makes no pictures: it has no signature png"
            )
        given = {"seed": str(secrets.randbits(31)), **request.query}
        if given.keys() != signature.takes.keys():
            raise Refusal(
                "INVALID_ARGUMENT", f":png takes {', '.join(signature.takes)} as its query"
            )
        arrays = {
            name: rest_api.tensor([_whole(given[name], name)], s, True)
            for name, s in signature.takes.items()
        }
        outputs = await self.call(servable, signature, arrays)
        picture = next(iter(outputs.values()))[0]
        return web.Response(
            body=picture, content_type="image/png", headers={"X-Seed": given["seed"]}
        )


def _whole(text: str, name: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise Refusal("INVALID_ARGUMENT", f"{name} is not a whole number")
    return int(text)


def _malformed(request: web.Request) -> Refusal:
    return Refusal("INVALID_ARGUMENT", f"Malformed request: {request.method} {request.path[:200]}")


def _metadata(servable: Servable) -> dict[str, Any]:
    specs = {
        k: (list(s.takes.values()), list(s.gives.values())) for k, s in servable.signatures.items()
    }
    return rest_api.metadata(servable.name, servable.version, specs)
