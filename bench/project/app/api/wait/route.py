import asyncio

from lampyr import Request

rate_limit = "none"
idle_timeout = 2


async def GET(req: Request) -> str:
    await asyncio.sleep(1)
    return "waited"
