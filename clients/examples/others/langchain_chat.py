"""LangChain streams an answer that heals: python langchain_chat.py [URL]; needs langchain-openai."""

import sys

from langchain_openai import ChatOpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
llm = ChatOpenAI(
    base_url=f"{url}/v1",
    api_key="none",
    model="smollm2-135m-instruct",
    max_tokens=100,
    temperature=1,
    seed=1,
    extra_body={"healing": {"threshold": {"k": 1.0}}},
)
for chunk in llm.stream("Why is the sky blue? Answer in three sentences."):
    print(chunk.content, end="", flush=True)
print()
