"""A WebSocket client of the `websockets` library, as a test orders it.

    visitor.py ADDRESS [--no-pings] [--quiet]

It sends back what it gets, but for these words: `leave` makes it close,
`slowly` makes it send 6 MB, `flood` makes it send without end, and `ping us`
makes it ping and say when it was answered. With `--no-pings` it answers no
pings, as if a bad proxy had swallowed them. With `--quiet` it reads all the time,
and says nothing but the length of messages above 100,000 bytes. It exits with 0
after a clean end.
"""

import asyncio
import contextlib
import sys

from websockets.exceptions import ConnectionClosed
from websockets.legacy.client import WebSocketClientProtocol, connect


class BehindABadProxy(WebSocketClientProtocol):
    async def pong(self, data=b""):
        pass


async def main(address, no_pings, quiet):
    options = {"create_protocol": BehindABadProxy} if no_pings else {}
    async with connect(
        f"ws://{address}/", ping_interval=None, max_size=None, **options
    ) as socket:
        await (listen if quiet else serve)(socket)
    # Both sent a close frame, and nobody complained.
    sys.exit(socket.close_code != 1000)


async def serve(socket):
    # Ends, one way or the other, when the connection is closed.
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            if message == "leave":
                break
            elif message == "slowly":
                await socket.send(bytes(6_000_000))
            elif message == "flood":
                while True:
                    await socket.send(bytes(10_000))
                    # Else it reads nothing as long as it can write.
                    await asyncio.sleep(0)
            elif message == "ping us":
                await (await socket.ping())
                await socket.send("we were answered")
            elif isinstance(message, bytes) and len(message) == 9 and message[:1] == b"?":
                await socket.send(b"!" + message[1:])
            else:
                await socket.send(message)


async def listen(socket):
    with contextlib.suppress(ConnectionClosed):
        async for message in socket:
            if len(message) > 100_000:
                await socket.send(str(len(message)))


asyncio.run(main(sys.argv[1], "--no-pings" in sys.argv, "--quiet" in sys.argv))
