import asyncio
import json
import sys
from typing import Any, Literal

from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionChunk
from openai.version import VERSION
from pydantic import BaseModel

asked = json.loads(sys.argv[1])
question = {"messages": [{"role": "user", "content": asked["question"]}], **asked["sampling"]}


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def client(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="none")


async def streamed(url: str, **more: Any) -> list[ChatCompletionChunk]:
    """Streams are read with the client for coroutines, whole answers with the other: both are heard."""
    async with AsyncOpenAI(base_url=url, api_key="none") as many:
        return [chunk async for chunk in await many.chat.completions.create(stream=True, **question, **more)]


def texts(chunks: list[ChatCompletionChunk], field: str = "content") -> list[str]:
    return [getattr(chunk.choices[0].delta, field, None) or "" for chunk in chunks if chunk.choices]


asking = client(asked["url"]).chat.completions
whole = asking.create(**question)
chunks = asyncio.run(streamed(asked["url"], stream_options={"include_usage": True}))
forced = {"type": "function", "function": {"name": "Place"}}
called = asking.parse(tools=[pydantic_function_tool(Place)], tool_choice=forced, **question)
function = called.choices[0].message.tool_calls[0].function
thought = asking.create(extra_body=asked["thinking"], **question).choices[0].message
thoughts = asyncio.run(streamed(asked["url"], extra_body=asked["thinking"]))
print(
    json.dumps(
        {
            "version": VERSION,
            "answer": whole.choices[0].message.content,
            "usage": whole.usage.completion_tokens,
            "streamed": texts(chunks),
            "streamed_usage": chunks[-1].usage.completion_tokens,
            "tool": [function.name, function.parsed_arguments.model_dump()],
            "object": asking.parse(response_format=Place, **question).choices[0].message.parsed.model_dump(),
            "thought": {
                "answer": thought.content,
                "reasoning": thought.reasoning,
                "streamed": texts(thoughts),
                "streamed_reasoning": texts(thoughts, "reasoning"),
            },
            "retried": client(asked["busy_url"]).chat.completions.create(**question).choices[0].message.content,
            "streamed_retried": texts(asyncio.run(streamed(asked["busy_url"]))),
        }
    )
)
