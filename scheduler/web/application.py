"""The three pages: `/healthz`, `/readyz`, `/metrics`."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Health:
    """What the pages ask. Each function answers None when all is well, else one line on what is wrong."""

    why_not_alive: Callable[[], str | None]
    why_not_ready: Callable[[], str | None]
    registry: CollectorRegistry


def create_application(health: Health, token: str | None) -> Starlette:
    """The application; with a token every page wants `Authorization: Bearer <token>`."""

    async def healthz(_request: Request) -> Response:
        return _verdict(health.why_not_alive())

    async def readyz(_request: Request) -> Response:
        return _verdict(await run_in_threadpool(health.why_not_ready))

    async def metrics(_request: Request) -> Response:
        text = await run_in_threadpool(generate_latest, health.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    pages = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return Starlette(routes=[Route(path, _guarded(page, token), methods=["GET"]) for path, page in pages.items()])


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
