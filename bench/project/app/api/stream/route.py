import asyncio
import time
from collections.abc import AsyncIterator

from lampyr import Request, Response

runtime = "edge"
rate_limit = "none"


async def GET(req: Request) -> Response:
    count, pause_s = int(req.query.get("n") or 50), float(req.query.get("pause") or 0.02)

    async def chunks() -> AsyncIterator[str]:
        start = time.monotonic()
        for number in range(count):
            due = start + (number + 1) * pause_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield f"{due:.6f}\n"

    return Response(chunks())
