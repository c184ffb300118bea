import asyncio
import json
import sys
from importlib.metadata import version
from typing import Any, Literal, TypeVar

from pydantic import BaseModel
from pydantic_ai import Agent, AgentRunResult, NativeOutput, ToolOutput
from pydantic_ai.messages import ThinkingPart, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.result import StreamedRunResult

asked = json.loads(sys.argv[1])
sampling = dict(asked["sampling"])
name = sampling.pop("model")
Part = TypeVar("Part")


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def agent(url: str, output: Any = str, **more: Any) -> Agent[None, Any]:
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=url, api_key="none"))
    return Agent(model, output_type=output, model_settings={**sampling, **more})


async def streamed(agent: Agent[None, Any]) -> tuple[list[str], StreamedRunResult[None, Any]]:
    async with agent.run_stream(asked["question"]) as stream:
        return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)], stream


def parts(result: AgentRunResult[Any] | StreamedRunResult[None, Any], kind: type[Part]) -> list[Part]:
    return [part for message in result.all_messages() for part in message.parts if isinstance(part, kind)]


def thoughts(result: AgentRunResult[Any] | StreamedRunResult[None, Any]) -> str | None:
    return "".join(part.content for part in parts(result, ThinkingPart)) or None


async def main() -> dict[str, Any]:
    whole = await agent(asked["url"]).run(asked["question"])
    pieces, stream = await streamed(agent(asked["url"]))
    used = await agent(asked["url"], ToolOutput(Place, name="Place")).run(asked["question"])
    calls = parts(used, ToolCallPart)
    native = await agent(asked["url"], NativeOutput(Place, name="Place")).run(asked["question"])
    thinker = agent(asked["url"], extra_body=asked["thinking"])
    thought = await thinker.run(asked["question"])
    thought_pieces, thought_stream = await streamed(thinker)
    return {
        "version": version("pydantic-ai-slim"),
        "answer": whole.output,
        "usage": whole.usage.output_tokens,
        "streamed": pieces,
        "streamed_usage": stream.usage.output_tokens,
        "tool": [calls[0].tool_name, used.output.model_dump()],
        "object": native.output.model_dump(),
        "thought": {
            "answer": thought.output,
            "reasoning": thoughts(thought),
            "streamed": thought_pieces,
            "streamed_reasoning": [thoughts(thought_stream) or ""],
        },
        "retried": (await agent(asked["busy_url"]).run(asked["question"])).output,
        "streamed_retried": (await streamed(agent(asked["busy_url"])))[0],
    }


print(json.dumps(asyncio.run(main())))
