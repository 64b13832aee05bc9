"""A wire to a server, for tests: a TCP proxy that is cut, falls silent, is slow, or loses what matters most."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

_COMMIT: Final = b"COMMIT\0"  # how a client ends its transaction; "READ COMMITTED" is none
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST


@dataclass(eq=False)
class _Link:
    """One connection through the wire."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    loses_answer: bool = False


class Wire:
    """Listens on `port`, and passes everything on to the port of 127.0.0.1 that `target` names at that moment.

    Thread-safe; each call returns when it has taken effect. Use it as a context manager, or call `close`.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self._delay: tuple[float, float] | None = None
        self._loss = 0.0
        self._random = random.Random()  # noqa: S311 - faults are no secret
        self.lost_answers = 0
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        listening = asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=256)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Every connection is reset, and so is every new one."""
        self._tell(self._cut)

    def hang(self) -> None:
        """Nothing passes, and nobody hears of it. What is on its way arrives when the wire is healed."""
        self._tell(self._flows.clear)

    def slow_down(self, shortest: float, longest: float, chance: random.Random) -> None:
        """Every packet takes so many seconds, more or less."""
        self._tell(lambda: self._become(delay=(shortest, longest), chance=chance))

    def lose_commit_answers(self, share: float, chance: random.Random) -> None:
        """Let this share of COMMITs be done, and their clients hear of a broken connection only."""
        self._tell(lambda: self._become(loss=share, chance=chance))

    def heal(self) -> None:
        """All is well again."""
        self._tell(self._heal)

    def close(self) -> None:
        """Listen no more, and drop every connection."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tell(self, act: Callable[[], None]) -> None:
        """Have the loop's thread do it, and wait for that."""
        done: Future[None] = Future()

        def do() -> None:
            act()
            done.set_result(None)

        self._loop.call_soon_threadsafe(do)
        done.result(10)

    def _cut(self) -> None:
        self._is_cut = True
        for link in list(self._links):
            self._reset(link)

    def _become(self, chance: random.Random, delay: tuple[float, float] | None = None, loss: float = 0.0) -> None:
        self._random, self._delay, self._loss = chance, delay, loss

    def _heal(self) -> None:
        self._is_cut, self._delay, self._loss = False, None, 0.0
        self._flows.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        self._links.add(link)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(link, reader)
        except (OSError, asyncio.CancelledError):
            self._reset(link)
        finally:
            self._tasks.discard(task)
            self._links.discard(link)

    async def _serve(self, link: _Link, reader: asyncio.StreamReader) -> None:
        await self._flows.wait()
        if self._is_cut:
            self._reset(link)
            return
        answers, link.server = await asyncio.open_connection("127.0.0.1", self._target())
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass_on(link, reader, link.server))
            both.create_task(self._pass_on(link, answers, link.client))

    async def _pass_on(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_answer = writer is link.client
        try:
            while data := await reader.read(65_536):
                if self._delay is not None:
                    await asyncio.sleep(self._random.uniform(*self._delay))
                await self._flows.wait()
                if is_answer and link.loses_answer:
                    self.lost_answers += 1
                    self._reset(link)
                    return
                if not is_answer and _COMMIT in data and self._random.random() < self._loss:
                    link.loses_answer = True
                writer.write(data)
                await writer.drain()
            await self._flows.wait()
            writer.close()
        except OSError:
            self._reset(link)

    def _reset(self, link: _Link) -> None:
        for writer in (link.client, link.server):
            if writer is not None and not writer.transport.is_closing():
                channel: socket.socket = writer.get_extra_info("socket")
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        self._flows.set()
        self._cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
