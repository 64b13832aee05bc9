"""Serves the pages in a thread of the daemon."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from contextlib import suppress
from typing import Final

import uvicorn
from starlette.applications import Starlette

from scheduler.domain.errors import InvalidInputError

_TICK_SECONDS: Final = 1.0


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def require_token(host: str, token: str | None) -> None:
    """Raises InvalidInputError for an address that others can reach, without a token."""
    if not is_loopback(host) and not token:
        raise InvalidInputError("SCHEDULER_HTTP_HOST", host, "set SCHEDULER_HTTP_TOKEN too, or listen on 127.0.0.1")


class _CalmServer(uvicorn.Server):
    """Looks once a second, for the date it tells, whether it is to end, and at once when it is told so.

    uvicorn does ten times a second, which is more than half of what an idle daemon takes of a processor.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Until told to leave."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _TICK_SECONDS)

    def leave(self) -> None:
        """Answer no more; from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended already
                self._loop.call_soon_threadsafe(self._told.set)


class WebServer:
    """One HTTP server on a socket bound when this is made: raises OSError when the port is taken."""

    def __init__(self, application: Starlette, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=64)
        self.port: int = self._socket.getsockname()[1]
        settings = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
        self._server = _CalmServer(settings)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.leave()
        self._thread.join(5)
        self._socket.close()
