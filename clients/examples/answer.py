"""An answer, and what healing did to it: python answer.py [URL]."""

import sys

from e3rl_client import E3RL, healing_of

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = E3RL(base_url=f"{url}/v1", api_key="none")
answer = client.chat.completions.create(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}],
    max_tokens=100,
    temperature=1,
    seed=1,
    healing={"threshold": {"k": 1.0}},
)
print(answer.choices[0].message.content)

healing = healing_of(answer)
print(f"{healing.erasures} erasures, {healing.erased_tokens} tokens erased, {healing.committed_tokens} kept")
for segment in healing.records or []:
    drawn = [f"{draw.uncertainty.u:.2f} (> {draw.threshold:.2f}, erased)" for draw in segment.erased]
    print(f"segment {segment.segment}: U", ", ".join([*drawn, f"{segment.uncertainty.u:.2f}"]))
