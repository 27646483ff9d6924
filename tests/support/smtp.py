"""An SMTP server that works on each mail for six seconds, and says what was in it.

    smtp.py PORT
"""

import asyncio
import json
import sys

from aiosmtpd.smtp import SMTP


class Slow:
    async def handle_DATA(self, server, session, envelope):
        await asyncio.sleep(6)
        return "250 " + json.dumps(envelope.content.decode())


async def main(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Slow()), "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1])))
