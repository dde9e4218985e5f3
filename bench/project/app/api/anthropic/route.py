import anthropic

from lampyr import Request, Response

rate_limit = "none"
idle_timeout = 0.02
client = anthropic.AsyncAnthropic(api_key="unused")


async def POST(req: Request) -> Response:
    return Response.json({"version": anthropic.__version__, "prompt": (await req.json())["prompt"]})
