from lampyr import Request, Response

runtime = "edge"
rate_limit = "none"


async def POST(req: Request) -> Response:
    body = await req.json()
    return Response.json({"result": body["prompt"], "length": len(body["prompt"])})
