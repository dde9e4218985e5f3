"""Everything under /api: an ordinary FastAPI application, documented by itself at /api/docs."""

from fastapi import FastAPI
from pydantic import BaseModel

runtime = "edge"
app = FastAPI(title="An API on Lampyr")


class Note(BaseModel):
    text: str


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    return {"hello": name}


@app.post("/notes", status_code=201)
async def add(note: Note) -> Note:
    return note
