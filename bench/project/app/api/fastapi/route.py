from fastapi import FastAPI
from pydantic import BaseModel

rate_limit = "none"
idle_timeout = 0.02
app = FastAPI()


class Question(BaseModel):
    prompt: str


@app.post("/api/fastapi")
async def answer(question: Question) -> dict[str, str]:
    return {"prompt": question.prompt}
