import json
import sys
from importlib.metadata import version
from typing import Literal

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

asked = json.loads(sys.argv[1])


class Place(BaseModel):
    """A place."""

    name: Literal["Oslo", "Lima"]


def model(url: str) -> ChatOpenAI:
    return ChatOpenAI(base_url=url, api_key="none", stream_usage=True, **asked["sampling"])


llm = model(asked["url"])
whole = llm.invoke(asked["question"])
chunks = list(llm.stream(asked["question"]))
usage = sum(chunks[1:], chunks[0]).usage_metadata
call = llm.bind_tools([Place], tool_choice="Place").invoke(asked["question"]).tool_calls[0]
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
            "retried": model(asked["busy_url"]).invoke(asked["question"]).content,
        }
    )
)
