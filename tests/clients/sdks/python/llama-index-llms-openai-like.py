import json
import sys
from importlib.metadata import version
from typing import Any, Literal

from llama_index.core.base.llms.types import ThinkingBlock
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

asked = json.loads(sys.argv[1])
sampling = dict(asked["sampling"])
seed = {"seed": sampling.pop("seed")}
question = [ChatMessage(role="user", content=asked["question"])]


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def model(url: str, **more: Any) -> OpenAILike:
    return OpenAILike(
        api_base=url,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        additional_kwargs={**seed, **more},
        **sampling,
    )


def reasoning(message: ChatMessage) -> str | None:
    return "".join(block.content for block in message.blocks if isinstance(block, ThinkingBlock)) or None


llm = model(asked["url"])
whole = llm.chat(question)
chunks = list(model(asked["url"], stream_options={"include_usage": True}).stream_chat(question))
tool = FunctionTool.from_defaults(fn=lambda name: name, name="Place", description="A place.", fn_schema=Place)
called = llm.chat_with_tools([tool], chat_history=question, tool_choice="Place")
call = llm.get_tool_calls_from_response(called)[0]
thinker = model(asked["url"], extra_body=asked["thinking"])
thought = thinker.chat(question).message
thoughts = list(thinker.stream_chat(question))
print(
    json.dumps(
        {
            "version": version("llama-index-llms-openai-like"),
            "answer": whole.message.content,
            "usage": whole.raw.usage.completion_tokens,
            "streamed": [chunk.delta or "" for chunk in chunks],
            "streamed_usage": chunks[-1].raw.usage.completion_tokens,
            "tool": [call.tool_name, call.tool_kwargs],
            "object": llm.as_structured_llm(Place).chat(question).raw.model_dump(),
            "thought": {
                "answer": thought.content,
                "reasoning": reasoning(thought),
                "streamed": [chunk.delta or "" for chunk in thoughts],
                "streamed_reasoning": [reasoning(thoughts[-1].message) or ""],
            },
            "retried": model(asked["busy_url"]).chat(question).message.content,
            "streamed_retried": [chunk.delta or "" for chunk in model(asked["busy_url"]).stream_chat(question)],
        }
    )
)
