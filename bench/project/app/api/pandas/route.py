import pandas

from lampyr import Request, Response

rate_limit = "none"
idle_timeout = 0.02


async def POST(req: Request) -> Response:
    frame = pandas.DataFrame({"length": [len((await req.json())["prompt"])]})
    return Response.json({"total": int(frame["length"].sum())})
