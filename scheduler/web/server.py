"""Serves the pages in a thread of the daemon."""

from __future__ import annotations

import ipaddress
import socket
import threading

import uvicorn
from starlette.applications import Starlette

from scheduler.domain.errors import InvalidInputError


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


class WebServer:
    """One HTTP server on a socket bound when this is made: raises OSError when the port is taken."""

    def __init__(self, application: Starlette, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=64)
        self.port: int = self._socket.getsockname()[1]
        settings = uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Answer no more."""
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()
