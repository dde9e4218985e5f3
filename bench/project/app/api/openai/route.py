import openai

from lampyr import Request, Response

rate_limit = "none"
idle_timeout = 0.02
client = openai.AsyncOpenAI(api_key="unused")


async def POST(req: Request) -> Response:
    return Response.json({"version": openai.__version__, "prompt": (await req.json())["prompt"]})
