"""Watch an answer heal: python events.py [URL]."""

import sys

from e3rl_client import E3RL, SegmentErased, StreamDroppedError, TextDelta

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = E3RL(base_url=f"{url}/v1", api_key="none")
stream = client.chat.completions.stream_events(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "Why is the sky blue? Answer in three sentences."}],
    max_tokens=100,
    temperature=1,
    seed=1,
)
try:
    with stream:
        for event in stream:
            if isinstance(event, TextDelta):
                print(f"final:  {event.text!r}")
            elif isinstance(event, SegmentErased):
                print(f"erased: {event.tokens} tokens, U {event.uncertainty.u:.2f} > {event.threshold:.2f}")
except StreamDroppedError as error:
    print(f"{error}; final until then: {error.committed!r}")
else:
    print(stream.summary)
