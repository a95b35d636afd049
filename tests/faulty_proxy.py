"""A TCP proxy before a real server that fails on demand, for tests.

with FaultyProxy("http://127.0.0.1:8333") as proxy:
    ...                       # a program talks to proxy.url
    proxy.fault = "reset"     # and from now on meets a fault, until
    proxy.fault = None
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Literal, Self
from urllib.parse import urlsplit

# 503: every request is answered so. stall: nothing is passed on. reset: connections are reset at
# the next request. gone: nobody listens, and what was connected is cut.
Fault = Literal["503", "stall", "reset", "gone"]

_BODY = (
    b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>down</Message></Error>"
)
_ANSWER_503 = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class FaultyProxy:
    """Listens on a free port of loopback, in a thread of its own, until the block ends.

    requests: pieces that clients have sent so far. struck: those that met a fault.
    """

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._target = address.hostname, address.port
        self._fault: Fault | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.requests = 0
        self.struck = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def fault(self) -> Fault | None:
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self._run(self._switch(fault)).result()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen()).result()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        await self._vanish()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _vanish(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            _reset(writer)

    async def _switch(self, fault: Fault | None) -> None:
        self._fault = fault
        if fault == "gone":
            await self._vanish()
        elif self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, back}
        self._open |= ends
        answers = asyncio.create_task(self._pass_on(there, writer))
        try:
            with suppress(asyncio.CancelledError):  # at the end; streams report it otherwise
                await self._pass_on(reader, back, asked_by=writer)
        finally:
            answers.cancel()
            self._open -= ends
            for end in ends:
                end.close()

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        asked_by: asyncio.StreamWriter | None = None,
    ) -> None:
        """Bytes from ``source`` to ``sink``; ``asked_by`` is the client that sends them, if any."""
        try:
            while data := await source.read(2**16):
                self.requests += asked_by is not None
                self.struck += asked_by is not None and self._fault is not None
                while self._fault == "stall":
                    await asyncio.sleep(0.05)
                if asked_by is not None and self._fault == "503":
                    asked_by.write(_ANSWER_503)
                elif asked_by is not None and self._fault == "reset":
                    _reset(asked_by)
                    return
                else:
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass  # by one end, or by us


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
