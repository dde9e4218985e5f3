"""/api/hello: says hello to whoever is named in the query or in a JSON body."""

from lampyr import BadRequest, Request, Response


def GET(req: Request) -> Response:
    return Response.json({"hello": req.query.get("name") or "world"})


async def POST(req: Request) -> Response:
    body = await req.json()
    if not isinstance(body, dict) or not isinstance(body.get("name"), str):
        raise BadRequest('say {"name": "..."}')
    return Response.json({"hello": body["name"]})
