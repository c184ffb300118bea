import json
import sys
from importlib.metadata import version
from typing import Any, Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

asked = json.loads(sys.argv[1])


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def model(url: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key="none", stream_usage=True, **asked["sampling"], **more)


llm = model(asked["url"])
whole = llm.invoke(asked["question"])
chunks = list(llm.stream(asked["question"]))
usage = sum(chunks[1:], chunks[0]).usage_metadata
call = llm.bind_tools([Place], tool_choice="Place").invoke(asked["question"]).tool_calls[0]
thinker = model(asked["url"], extra_body=asked["thinking"])
thought = thinker.invoke(asked["question"])
thoughts = list(thinker.stream(asked["question"]))
print(
    json.dumps(
        {
            "version": version("langchain-openai"),
            "answer": whole.content,
            "usage": whole.usage_metadata["output_tokens"],
            "streamed": [chunk.content for chunk in chunks],
            "streamed_usage": usage["output_tokens"],
            "tool": [call["name"], call["args"]],
            "object": llm.with_structured_output(Place, method="json_schema").invoke(asked["question"]).model_dump(),
            "thought": {
                "answer": thought.content,
                "reasoning": thought.additional_kwargs.get("reasoning_content"),
                "streamed": [chunk.content for chunk in thoughts],
                "streamed_reasoning": [chunk.additional_kwargs.get("reasoning_content", "") for chunk in thoughts],
            },
            "retried": model(asked["busy_url"]).invoke(asked["question"]).content,
            "streamed_retried": [chunk.content for chunk in model(asked["busy_url"]).stream(asked["question"])],
        }
    )
)
