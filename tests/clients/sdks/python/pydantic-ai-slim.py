import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.messages import ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

asked = json.loads(sys.argv[1])
sampling = dict(asked["sampling"])
name = sampling.pop("model")


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def agent(url: str, output: Any = str) -> Agent[None, Any]:
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=url, api_key="none"))
    return Agent(model, output_type=output, model_settings=sampling)


async def main() -> dict[str, Any]:
    whole = await agent(asked["url"]).run(asked["question"])
    async with agent(asked["url"]).run_stream(asked["question"]) as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]
    used = await agent(asked["url"], ToolOutput(Place, name="Place")).run(asked["question"])
    calls = [part for message in used.all_messages() for part in message.parts if isinstance(part, ToolCallPart)]
    native = await agent(asked["url"], NativeOutput(Place, name="Place")).run(asked["question"])
    return {
        "version": version("pydantic-ai-slim"),
        "answer": whole.output,
        "usage": whole.usage.output_tokens,
        "streamed": pieces,
        "streamed_usage": stream.usage.output_tokens,
        "tool": [calls[0].tool_name, used.output.model_dump()],
        "object": native.output.model_dump(),
        "retried": (await agent(asked["busy_url"]).run(asked["question"])).output,
    }


print(json.dumps(asyncio.run(main())))
