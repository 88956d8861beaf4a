"""A TCP proxy before a Redis server: it cuts, goes silent, delays, and stops the world at a chosen command.

One thread owns an event loop and all its connections. Requests are forwarded command by command (RESP arrays), so that
a fault can be put before, or right behind, a single one.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self, TypeVar

T = TypeVar("T")

HOST = "127.0.0.1"


@dataclass(eq=False)
class Link:
    """A client's connection and the server's."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False
    """Half-open: whatever comes is read and thrown away."""

    def cut(self) -> None:
        for each in (self.client, self.server):
            found = each.get_extra_info("socket")
            if found is not None:
                # Lingering for no time makes the close a reset (socket(7)).
                with contextlib.suppress(OSError):
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.transport.abort()


class Proxy:
    """Listens on a free port; `url` leads through it."""

    def __init__(self, server_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._server_port = server_port
        self._tls = tls
        self._links: set[Link] = set()
        self.delay_s: Callable[[], float] = float
        self.before: Callable[[Link, bytes], bool] = lambda _, __: True
        """Called with each command before it is forwarded; False drops it."""
        self.after: Callable[[Link, bytes], None] = lambda _, __: None
        """Called with each command after the server answered, before the answer is forwarded."""
        self._silent_for_new = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"redis://{HOST}:{self.port}/0"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection."""

        def cut_all() -> None:
            for each in list(self._links):
                each.cut()

        self._loop.call_soon_threadsafe(cut_all)

    def go_silent(self, *, new_ones: bool = False) -> None:
        """Forward nothing more on the connections that stand, without closing them; on new ones neither, if asked."""

        def silence() -> None:
            self._silent_for_new = new_ones
            for each in self._links:
                each.silent = True

        self._loop.call_soon_threadsafe(silence)

    def heal(self) -> None:
        """Let new connections through. Those that were silent stay so, as behind a firewall that forgot them."""
        self._silent_for_new = False

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, HOST, 0, ssl=self._tls)

    async def _close(self) -> None:
        self._server.close()
        for each in list(self._links):
            each.cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(HOST, self._server_port)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, server_writer, self._silent_for_new)
        self._links.add(link)
        commands: list[bytes] = []
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._requests(link, reader, commands))
                both.create_task(self._replies(link, server_reader, commands))
        except* (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._links.discard(link)
            link.cut()

    async def _requests(self, link: Link, reader: asyncio.StreamReader, commands: list[bytes]) -> None:
        while True:
            raw, name = await read_command(reader)
            await asyncio.sleep(self.delay_s())
            if link.silent or not self.before(link, name):
                continue
            commands.append(name)
            link.server.write(raw)
            await link.server.drain()

    async def _replies(self, link: Link, reader: asyncio.StreamReader, commands: list[bytes]) -> None:
        while data := await reader.read(1 << 16):
            # Answers are not told apart: a chunk answers all that was asked. Exact enough where one command is out.
            answered, commands[:] = commands[:], []
            for each in answered:
                self.after(link, each)
            if link.silent:
                continue
            link.client.write(data)
            await link.client.drain()
        raise ConnectionResetError


async def read_command(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Give a request as it travels, and the command's name (RESP: an array of bulk strings)."""
    head = await reader.readuntil(b"\r\n")
    parts = [head]
    name = b""
    for number in range(int(head[1:])):
        length = await reader.readuntil(b"\r\n")
        content = await reader.readexactly(int(length[1:]) + 2)
        parts += [length, content]
        if number == 0:
            name = content[:-2].upper()
    return b"".join(parts), name
