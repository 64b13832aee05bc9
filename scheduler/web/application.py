"""The three pages: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Answer = Callable[[Request], Awaitable[Response]]

# Whoever asks whether we are ready gives up after a second or two himself.
_PATIENCE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Health:
    """What the pages ask. Each function answers None when all is well, else one line on what is wrong."""

    why_not_alive: Callable[[], str | None]
    why_not_ready: Callable[[], str | None]
    registry: CollectorRegistry


def create_application(health: Health, token: str | None) -> Starlette:
    """The application; with a token every page wants `Authorization: Bearer <token>`."""
    readiness = _Readiness(health.why_not_ready)

    async def healthz(_request: Request) -> Response:
        return _verdict(health.why_not_alive())

    async def readyz(_request: Request) -> Response:
        return _verdict(await readiness.ask())

    async def metrics(_request: Request) -> Response:
        text = await run_in_threadpool(generate_latest, health.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    pages = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return Starlette(routes=[Route(path, _guarded(page, token), methods=["GET"]) for path, page in pages.items()])


class _Readiness:
    """Asks, and answers in time, whatever becomes of the question.

    A database that hangs holds one thread: those who ask meanwhile wait for the same answer, so that the threads that
    scrapes need are left to them.
    """

    def __init__(self, why_not_ready: Callable[[], str | None]) -> None:
        self._why_not_ready = why_not_ready
        self._asking: asyncio.Task[str | None] | None = None

    async def ask(self) -> str | None:
        """None when ready, else what is wrong."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(run_in_threadpool(self._find_out))
        done, _ = await asyncio.wait([self._asking], timeout=_PATIENCE_SECONDS)
        return self._asking.result() if done else f"no answer of the database within {_PATIENCE_SECONDS:.0f} seconds"

    def _find_out(self) -> str | None:
        try:
            return self._why_not_ready()
        except Exception as error:  # noqa: BLE001 - whatever it is, this isn't ready
            return f"whether this is ready can't be found out: {type(error).__name__}"


def _verdict(problem: str | None) -> Response:
    return PlainTextResponse("ok\n") if problem is None else PlainTextResponse(f"{problem}\n", 503)


def _guarded(page: Answer, token: str | None) -> Answer:
    if token is None:
        return page

    async def guarded(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if not secrets.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return PlainTextResponse("give the token\n", 401, {"WWW-Authenticate": "Bearer"})
        return await page(request)

    return guarded
