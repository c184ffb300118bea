"""A stream becomes the answer that the request would have got without one, and tells when its text came."""

from __future__ import annotations

from typing import Any

from e3rl_training.evaluation.streaming import Stream


def delta(segment: int, attempt: int, text: str) -> dict[str, Any]:
    event = {"type": "segment.delta", "segment": segment, "attempt": attempt, "text": text}
    return {"choices": [{"text": "", "logprobs": None}], "healing": event}


def test_a_healed_completion() -> None:
    records = [{"segment": 0, "erased": [{"attempt": 0}, {"attempt": 1}]}, {"segment": 1}]
    stream = Stream()
    for seconds, chunk in enumerate(
        [
            {"choices": [{"text": ""}]},
            delta(0, 0, "one "),
            delta(0, 0, "two"),
            delta(0, 1, "three"),
            {"choices": [{"text": "four ", "logprobs": {"token_logprobs": [-1.0, -2.0]}}]},
            {"choices": [{"text": "five", "logprobs": {"token_logprobs": [-3.0]}}]},
            {"choices": [{"text": "", "finish_reason": "stop"}], "healing": {"type": "summary", "records": records}},
            {"choices": [], "usage": {"completion_tokens": 3}},
        ]
    ):
        assert not stream.is_complete
        stream.feed(chunk, float(seconds))
    assert stream.is_complete and (stream.first_token, stream.first_committed) == (1.0, 4.0)
    answer = stream.answer()
    assert answer["choices"] == [
        {"text": "four five", "logprobs": {"token_logprobs": [-1.0, -2.0, -3.0]}, "finish_reason": "stop"}
    ]
    assert answer["usage"] == {"completion_tokens": 3}
    assert [draw.get("text") for draw in answer["healing"]["records"][0]["erased"]] == ["one two", None]


def test_a_stock_chat() -> None:
    stream = Stream()
    for seconds, chunk in enumerate(
        [
            {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
            {"choices": [{"delta": {"content": "Six"}, "logprobs": {"content": [{"logprob": -0.5}]}}]},
            {"choices": [{"delta": {}, "finish_reason": "length"}]},
        ]
    ):
        stream.feed(chunk, float(seconds))
    assert stream.first_token == stream.first_committed == 1.0
    assert stream.answer()["choices"] == [
        {"message": {"content": "Six"}, "logprobs": {"content": [{"logprob": -0.5}]}, "finish_reason": "length"}
    ]
    assert "healing" not in stream.answer()


def test_an_answer_without_text_has_no_times() -> None:
    stream = Stream()
    stream.feed({"choices": [{"text": "", "finish_reason": "stop"}]}, 1.0)
    assert stream.first_token is stream.first_committed is None
