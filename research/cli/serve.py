"""Command `sparring serve models --port 8501`: serve exported models over HTTP.

The protocol is TensorFlow Serving's.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparring.cli.parser import strict
from sparring.errors import UserError
from sparring.serving.request_log import set_logging

_log = logging.getLogger("sparring.serve")


def main(arguments: Sequence[str]) -> int:
    """Parse the flags, serve until a signal; return the exit code."""
    chosen = _parse(arguments)
    _check(chosen)
    tls = _tls(chosen)
    set_logging(chosen.log)
    asyncio.run(_serve(chosen, tls))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = strict(
        argparse.ArgumentParser(
            prog="sparring serve", description="Serve exported models over HTTP."
        )
    )
    add = parser.add_argument
    add("models", type=Path, help="the folder that sparring export wrote to")
    add(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; default 127.0.0.1, this machine alone",
    )
    add("--port", type=int, default=8501, help="default 8501; 0: any free one")
    add(
        "--keys",
        type=Path,
        help="the file of API keys (sparring keys FILE add NAME); needed beyond this machine",
    )
    add("--tls-cert", type=Path, help="certificate, PEM; needed beyond this machine")
    add("--tls-key", type=Path, help="its private key, PEM")
    add(
        "--versions",
        type=int,
        default=1,
        help="newest versions of a model to keep in memory; default 1",
    )
    add("--poll", type=float, default=1.0, help="seconds between looks for new versions; default 1")
    add("--no-batching", action="store_true", help="every request by itself")
    add("--batch-rows", type=int, default=64, help="rows of a batch at most; default 64")
    add(
        "--batch-delay",
        type=float,
        default=0.0,
        help="milliseconds that a request waits for others; default 0",
    )
    add(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="threads that run models; default one per CPU",
    )
    add(
        "--max-body",
        type=int,
        default=6 * 2**20,
        help="bytes of a body, also unpacked; default 6291456",
    )
    add("--max-depth", type=int, default=32, help="levels of nested JSON; default 32")
    add("--max-rows", type=int, default=1024, help="instances of a request; default 1024")
    add("--max-concurrency", type=int, default=256, help="requests answered at a time; default 256")
    add("--timeout", type=float, default=30.0, help="seconds for a request; default 30")
    add(
        "--idle",
        type=float,
        default=60.0,
        help="seconds a connection may stay without a request; default 60",
    )
    add(
        "--sessions",
        type=int,
        default=10_000,
        help="sessions of policies that remember; default 10000",
    )
    add(
        "--session-idle",
        type=float,
        default=900.0,
        help="seconds after which one is forgotten; default 900",
    )
    add("--allow-nan", action="store_true", help="accept NaN and infinities, and answer with them")
    add(
        "--unverified",
        action="store_true",
        help="serve models without our manifest too: a SavedModel is a program",
    )
    add(
        "--log",
        choices=("json", "errors"),
        default="json",
        help="every request as a line of JSON, or failed ones only",
    )
    return parser.parse_args(list(arguments))


def _check(chosen: argparse.Namespace) -> None:
    if not chosen.models.is_dir():
        raise UserError(
            f"{chosen.models}: there is no such folder. `sparring export RUN --out "
            f"{chosen.models}` makes it."
        )
    for flag in (
        "versions",
        "batch_rows",
        "threads",
        "max_body",
        "max_depth",
        "max_rows",
        "max_concurrency",
        "sessions",
    ):
        if getattr(chosen, flag) < 1:
            raise UserError(f"--{flag.replace('_', '-')} {getattr(chosen, flag)}: at least 1.")
    if not 0 <= chosen.port <= 65535:
        raise UserError(f"--port {chosen.port}: 1 to 65535, or 0 for any free one.")
    for flag in ("poll", "timeout", "idle", "session_idle"):
        if not getattr(chosen, flag) > 0.0:
            raise UserError(
                f"--{flag.replace('_', '-')} {getattr(chosen, flag):g}: more than 0 seconds."
            )
    if not 0.0 <= chosen.batch_delay <= 1000.0:
        raise UserError(f"--batch-delay {chosen.batch_delay:g}: 0 to 1000 milliseconds.")
    if bool(chosen.tls_cert) != bool(chosen.tls_key):
        raise UserError("--tls-cert and --tls-key go together.")
    if not _is_loopback(chosen.host) and not (chosen.keys and chosen.tls_cert):
        raise UserError(
            f"--host {chosen.host} is reached from other machines: give --keys, --tls-cert and "
            "--tls-key, or listen at "
            "127.0.0.1."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls(chosen: argparse.Namespace) -> ssl.SSLContext | None:
    if chosen.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(chosen.tls_cert, chosen.tls_key)
    except OSError as error:
        raise UserError(
            f"--tls-cert {chosen.tls_cert} with --tls-key {chosen.tls_key}: {error}."
        ) from error
    return context


async def _serve(chosen: argparse.Namespace, tls: ssl.SSLContext | None) -> None:
    from sparring.serving.server import Server

    server = Server(_settings(chosen), tls)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    where = f"{'https' if tls else 'http'}://{chosen.host}:{server.port}"
    print(f"{where}/v1/models", flush=True)
    _log.info("listening", extra={"url": where, "models": str(chosen.models)})
    watching = asyncio.create_task(server.watch())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([watching, stopped], return_when="FIRST_COMPLETED")
    stopped.cancel()
    _log.info("stopping")
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    await server.stop()


def _settings(chosen: argparse.Namespace) -> Any:
    from sparring.serving.api_keys import Keys
    from sparring.serving.request_limits import Limits
    from sparring.serving.server import Settings

    return Settings(
        models=chosen.models,
        host=chosen.host,
        port=chosen.port,
        keys=Keys(chosen.keys) if chosen.keys else None,
        own_only=_is_loopback(chosen.host),
        keep=chosen.versions,
        poll=chosen.poll,
        batch=None if chosen.no_batching else (chosen.batch_rows, chosen.batch_delay / 1e3),
        threads=chosen.threads,
        unverified=chosen.unverified,
        log_all=chosen.log == "json",
        limits=Limits(
            chosen.max_body,
            chosen.max_depth,
            chosen.max_rows,
            chosen.max_concurrency,
            chosen.timeout,
            chosen.idle,
            chosen.allow_nan,
            chosen.sessions,
            chosen.session_idle,
        ),
    )
