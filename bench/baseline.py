"""The same handlers on Starlette, served by uvicorn (uvloop, httptools): what Lampyr is measured against."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route


async def echo(request: Request) -> JSONResponse:
    body = json.loads(await request.body())
    return JSONResponse({"result": body["prompt"], "length": len(body["prompt"])})


async def stream(request: Request) -> StreamingResponse:
    count, pause_s = int(request.query_params.get("n", 50)), float(request.query_params.get("pause", 0.02))

    async def chunks() -> AsyncIterator[str]:
        start = time.monotonic()
        for number in range(count):
            due = start + (number + 1) * pause_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield f"{due:.6f}\n"

    return StreamingResponse(chunks(), media_type="text/plain")


app = Starlette(routes=[Route("/api/echo", echo, methods=["POST"]), Route("/api/stream", stream)])
