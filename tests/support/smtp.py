"""An SMTP server that works on each mail for some seconds, and says what was in it.

    smtp.py PORT [SECONDS [NOOPS]]

After so many NOOPs it hangs up.
"""

import asyncio
import json
import sys

from aiosmtpd.smtp import SMTP


class Slow:
    def __init__(self, seconds):
        self.seconds = seconds

    async def handle_DATA(self, server, session, envelope):
        await asyncio.sleep(self.seconds)
        return "250 " + json.dumps(envelope.content.decode())


async def main(port, seconds=6, noops=1000):
    loop = asyncio.get_running_loop()
    limits = {"*": 1000, "NOOP": noops}
    serve = lambda: SMTP(Slow(seconds), command_call_limit=limits)
    server = await loop.create_server(serve, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(*map(int, sys.argv[1:])))
