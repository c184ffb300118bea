import json
import sys
from importlib.metadata import version
from typing import Any, Literal

import instructor
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

asked = json.loads(sys.argv[1])
question = {"messages": [{"role": "user", "content": asked["question"]}], **asked["sampling"]}


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def client(url: str, mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(OpenAI(base_url=url, api_key="none"), mode=mode)


def text(url: str, **more: Any) -> ChatCompletion:
    return client(url, instructor.Mode.TOOLS).chat.completions.create(response_model=None, **question, **more)


def streamed(url: str, **more: Any) -> list[ChatCompletionChunk]:
    return list(text(url, stream=True, stream_options={"include_usage": True}, **more))


def texts(chunks: list[ChatCompletionChunk], field: str = "content") -> list[str]:
    return [getattr(chunk.choices[0].delta, field, None) or "" for chunk in chunks if chunk.choices]


whole = text(asked["url"])
chunks = streamed(asked["url"])
place, raw = client(asked["url"], instructor.Mode.TOOLS).chat.completions.create_with_completion(
    response_model=Place, **question
)
thought = text(asked["url"], extra_body=asked["thinking"]).choices[0].message
thoughts = streamed(asked["url"], extra_body=asked["thinking"])
print(
    json.dumps(
        {
            "version": version("instructor"),
            "answer": whole.choices[0].message.content,
            "usage": whole.usage.completion_tokens,
            "streamed": texts(chunks),
            "streamed_usage": chunks[-1].usage.completion_tokens,
            "tool": [raw.choices[0].message.tool_calls[0].function.name, place.model_dump()],
            "object": client(asked["url"], instructor.Mode.JSON_SCHEMA)
            .chat.completions.create(response_model=Place, **question)
            .model_dump(),
            "thought": {
                "answer": thought.content,
                "reasoning": thought.reasoning,
                "streamed": texts(thoughts),
                "streamed_reasoning": texts(thoughts, "reasoning"),
            },
            "retried": text(asked["busy_url"]).choices[0].message.content,
            "streamed_retried": texts(streamed(asked["busy_url"])),
        }
    )
)
