import json
import sys
from importlib.metadata import version
from typing import Literal

import instructor
from openai import OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

asked = json.loads(sys.argv[1])
question = {"messages": [{"role": "user", "content": asked["question"]}], **asked["sampling"]}


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def client(url: str, mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=url, api_key="none"), mode=mode)


def text(url: str) -> ChatCompletion:
    return client(url, instructor.Mode.TOOLS).chat.completions.create(response_model=None, **question)


whole = text(asked["url"])
chunks = list(
    client(asked["url"], instructor.Mode.TOOLS).chat.completions.create(
        response_model=None, stream=True, stream_options={"include_usage": True}, **question
    )
)
place, raw = client(asked["url"], instructor.Mode.TOOLS).chat.completions.create_with_completion(
    response_model=Place, **question
)
print(
    json.dumps(
        {
            "version": version("instructor"),
            "answer": whole.choices[0].message.content,
            "usage": whole.usage.completion_tokens,
            "streamed": [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices],
            "streamed_usage": chunks[-1].usage.completion_tokens,
            "tool": [raw.choices[0].message.tool_calls[0].function.name, place.model_dump()],
            "object": client(asked["url"], instructor.Mode.JSON_SCHEMA)
            .chat.completions.create(response_model=Place, **question)
            .model_dump(),
            "retried": text(asked["busy_url"]).choices[0].message.content,
        }
    )
)
