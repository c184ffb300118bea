"""Starting policies: what they are trained on, and that their folders are whole and made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from e3rl_training import warmup
from e3rl_training.modchain import Problem, grade, problems
from e3rl_training.warmup import POLICIES, WarmUp, examples, make_tokenizer, padded, starting_policy


def texts(spec: WarmUp) -> list[tuple[Problem, str]]:
    ids, labels = examples(spec, torch.Generator().manual_seed(0))
    tokenizer = make_tokenizer()
    prompt = 2 * spec.steps + 2
    assert (labels[:, :prompt] == -100).all()
    assert torch.equal(labels[:, prompt:], ids[:, prompt:])
    assert (ids[:, -1] == tokenizer.eos_token_id).all()
    pairs = zip(tokenizer.batch_decode(ids[:, :prompt]), tokenizer.batch_decode(ids[:, prompt:-1]), strict=True)
    return [(Problem.parse(asked), solution) for asked, solution in pairs]


def test_clean_examples_are_solutions() -> None:
    for problem, text in texts(WarmUp(noise=0.0, updates=1, steps=4)):
        assert text == problem.solution


def test_noise_is_per_step_and_carried_on() -> None:
    grades = [grade(problem, text) for problem, text in texts(WarmUp(noise=0.12, updates=1, batch=2000))]
    wrong = sum(not right for steps in grades for right in steps) / (6 * len(grades))
    assert wrong == pytest.approx(0.12, abs=0.01)


def test_solutions_alone_are_scored_and_rows_are_padded() -> None:
    tokenizer = make_tokenizer()
    asked = [*problems(1, steps=2, seed=0), *problems(1, steps=3, seed=0)]
    _, masks, scores = padded(tokenizer, asked)
    for problem, mask, labels in zip(asked, masks, scores, strict=True):
        scored = labels[labels != -100]
        assert tokenizer.decode(scored[:-1]) == problem.solution
        assert scored[-1] == tokenizer.eos_token_id
        assert mask.sum() == len(problem.prompt) + len(scored)
        assert not labels[: len(problem.prompt)].ne(-100).any()


def test_tokens_come_back_as_text() -> None:
    tokenizer = make_tokenizer()
    assert tokenizer.decode(tokenizer("7+8*3>")["input_ids"]) == "7+8*3>"


def test_a_policy_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(warmup.POLICIES, "modchain-s1", replace(POLICIES["modchain-s1"], updates=2))
    folder = starting_policy("modchain-s1", tmp_path, 0)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    monkeypatch.setattr(warmup, "warm_up", None)
    assert starting_policy("modchain-s1", tmp_path, 0) == folder
    assert list(tmp_path.iterdir()) == [folder]


def test_longer_problems_have_a_policy_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(warmup.POLICIES, "modchain-s1", replace(POLICIES["modchain-s1"], updates=2))
    usual = starting_policy("modchain-s1", tmp_path, 0, steps=6)
    assert usual == starting_policy("modchain-s1", tmp_path, 0) != starting_policy("modchain-s1", tmp_path, 0, steps=8)
