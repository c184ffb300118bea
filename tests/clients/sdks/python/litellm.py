import json
import sys
from importlib.metadata import version
from typing import Any, Literal

import litellm
from pydantic import BaseModel

asked = json.loads(sys.argv[1])
sampling = dict(asked["sampling"])
name = f"openai/{sampling.pop('model')}"


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def ask(url: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": asked["question"]}]
    return litellm.completion(model=name, messages=messages, api_base=url, api_key="none", **sampling, **more)


def texts(chunks: list[Any], field: str = "content") -> list[str]:
    return [getattr(chunk.choices[0].delta, field, None) or "" for chunk in chunks if chunk.choices]


whole = ask(asked["url"])
chunks = list(ask(asked["url"], stream=True, stream_options={"include_usage": True}))
tool = {"type": "function", "function": {"name": "Place", "parameters": Place.model_json_schema()}}
called = ask(asked["url"], tools=[tool], tool_choice={"type": "function", "function": {"name": "Place"}})
function = called.choices[0].message.tool_calls[0].function
thought = ask(asked["url"], extra_body=asked["thinking"]).choices[0].message
thoughts = list(ask(asked["url"], stream=True, extra_body=asked["thinking"]))
print(
    json.dumps(
        {
            "version": version("litellm"),
            "answer": whole.choices[0].message.content,
            "usage": whole.usage.completion_tokens,
            "streamed": texts(chunks),
            "streamed_usage": chunks[-1].usage.completion_tokens,
            "tool": [function.name, json.loads(function.arguments)],
            "object": json.loads(ask(asked["url"], response_format=Place).choices[0].message.content),
            "thought": {
                "answer": thought.content,
                "reasoning": getattr(thought, "reasoning_content", None),
                "streamed": texts(thoughts),
                "streamed_reasoning": texts(thoughts, "reasoning_content"),
            },
            "retried": ask(asked["busy_url"]).choices[0].message.content,
            "streamed_retried": texts(list(ask(asked["busy_url"], stream=True))),
        }
    )
)
