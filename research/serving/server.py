"""Server of the service on a port, with a watch over the folder of models."""

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from sparring.errors import UserError
from sparring.serving.api_keys import Keys
from sparring.serving.metrics import Instruments
from sparring.serving.middleware import Guard
from sparring.serving.model_repository import Shelf
from sparring.serving.request_limits import Limits
from sparring.serving.routes import Service

_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Seconds in which a refused body is still taken in, so that its sender reads the reason
_LINGER = 2.0
_GRACE = 20.0  # seconds that requests under way have at the end


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    `own_only`: serve this machine's clients alone; `batch`: rows and seconds, see
    `batching.Batcher`.
    """

    models: Path
    host: str = "127.0.0.1"
    port: int = 0
    keys: Keys | None = None
    own_only: bool = True
    keep: int = 1
    poll: float = 1.0
    batch: tuple[int, float] | None = (64, 0.0)
    threads: int = 2
    unverified: bool = False
    log_all: bool = True
    limits: Limits = field(default_factory=Limits)


class Server:
    """Server from `start` to `stop`; `watch` looks for new versions until it is cancelled."""

    def __init__(self, settings: Settings, tls: ssl.SSLContext | None = None) -> None:
        self.settings = settings
        self.tls = tls
        self.counts = Instruments()
        self.shelf = Shelf(settings.models, settings.keep, settings.unverified, self._loaded)
        self.service = Service(
            self.shelf, settings.limits, self.counts, settings.threads, settings.batch
        )
        hosts = _LOCAL | {settings.host} if settings.own_only else None
        self.guard = Guard(settings.limits, self.counts, settings.keys, hosts, settings.log_all)
        self._loader = ThreadPoolExecutor(1, "loader")
        self.port = settings.port

    def _loaded(self, name: str, version: int, status: str, load: float, warm_up: float) -> None:
        path = f"{self.settings.models}/{name}/{version}"
        self.counts.loads.add(path, "success" if status == "OK" else "fail")
        if status == "OK":
            self.counts.load_latency.add(path, by=1e6 * load)
            self.counts.warm_up.add(1e6 * warm_up, path, "success")

    async def start(self) -> None:
        """Start to listen; models are loaded by `watch` or `scan`."""
        app = web.Application(middlewares=[self.guard.middleware()])
        app.add_routes(self.service.routes())
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,  # it is done within limits instead
            keepalive_timeout=self.settings.limits.idle,
            lingering_time=_LINGER,
            shutdown_timeout=_GRACE,
            handler_cancellation=True,  # nothing is computed for a client that has gone
        )
        await self._runner.setup()
        protocol = self._runner.server
        assert protocol is not None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: self.guard.connections.idle(protocol()),
                self.settings.host,
                self.settings.port,
                ssl=self.tls,
                backlog=1024,
                ssl_handshake_timeout=10.0 if self.tls else None,
            )
        except OSError as error:
            raise UserError(
                f"{self.settings.host}:{self.settings.port}: {error.strerror}: choose another "
                "--port, or --host."
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def scan(self) -> None:
        """Look for new versions once."""
        await asyncio.get_running_loop().run_in_executor(self._loader, self.shelf.scan)

    async def watch(self) -> None:
        """Look for new versions repeatedly."""
        while True:
            await self.scan()
            await asyncio.sleep(self.settings.poll)

    async def stop(self) -> None:
        """Stop listening, answer the requests under way, and end."""
        self.service.draining = True
        self._server.close()
        await self._runner.cleanup()
        self._loader.shutdown(wait=False, cancel_futures=True)
        self.service.executor.shutdown(wait=False, cancel_futures=True)
