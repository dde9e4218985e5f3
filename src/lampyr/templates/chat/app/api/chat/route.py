"""/api/chat: the conversation comes in, the model's answer goes out, token by token."""

from lampyr import BadRequest, Request, Response
from openai import AsyncOpenAI

runtime = "edge"
client = AsyncOpenAI()  # its address and key come from the provider in lampyr.toml


async def POST(req: Request) -> Response:
    body = await req.json()
    if not isinstance(body, dict) or not body.get("messages"):
        raise BadRequest('say {"messages": [{"role": "user", "content": "..."}]}')
    stream = await client.chat.completions.create(model="local", messages=body["messages"], stream=True)
    return Response(stream)


async def GET() -> object:
    return await client.models.retrieve("local")  # who answers, for the page
