"""Starting policies for the mod-chain task: a tiny Llama, warmed up with supervision, in two states [ours].

    modchain-s1  trained on solutions in which 16 % of the steps are wrong: it knows the task, and sampling trips it
                 (greedy right, sampled often wrong: execution noise)
    modchain-s2  trained on clean solutions until greedy decoding solves half: what it lacks is knowledge

Both are plain Hugging Face folders with a head size that vLLM serves.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from e3rl_core.engines.torch_rollout import rollout
from e3rl_core.policy import HealingPolicy
from e3rl_training.modchain import ALPHABET, OPERATORS, STEP_TOKENS, Problem, accuracy, problems

_PAD, _EOS = 0, 1
_SPECIAL = {"<pad>": _PAD, "<eos>": _EOS}
_TOKEN = {character: len(_SPECIAL) + place for place, character in enumerate(ALPHABET)}


@dataclass(frozen=True)
class WarmUp:
    """Supervised training from scratch."""

    noise: float
    """Share of steps whose result is a wrong digit; what follows goes on from it."""
    updates: int = 600
    """At most."""
    solves: float | None = None
    """Greedy accuracy at which training stops, if any."""
    batch: int = 64
    steps: int = 6
    """Of a chain."""
    learning_rate: float = 2e-3


#: The built-in starting policies, by the name a recipe calls them.
POLICIES = {
    "modchain-s1": WarmUp(noise=0.16),
    "modchain-s2": WarmUp(noise=0.0, solves=0.5),
}
#: Greedy accuracy is looked at every so many updates, on so many problems.
_LOOK, _LOOKED_AT = 10, 100


def make_tokenizer() -> Any:
    """One token per character of the task."""
    inner = Tokenizer(models.WordLevel({**_SPECIAL, **_TOKEN}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>")


def tiny_llama(seed: int) -> Any:
    """Three random layers, 0.34M parameters."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(_SPECIAL) + len(ALPHABET),
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=32,
            max_position_embeddings=512,
            pad_token_id=_PAD,
            eos_token_id=_EOS,
            bos_token_id=None,
            tie_word_embeddings=False,
        )
    )


def starting_policy(name: str, cache: Path, seed: int) -> Path:
    """The folder of a built-in starting policy; made once per seed (about a minute on two cores)."""
    spec = POLICIES[name]
    recipe = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:8]
    folder = cache / f"{name}-{recipe}-seed{seed}"
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        model = warm_up(spec, seed)
        try:
            model.save_pretrained(aside)
            make_tokenizer().save_pretrained(aside)
            os.replace(aside, folder)
        except OSError:
            if not folder.exists():  # another process was first: its folder is as good
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def warm_up(spec: WarmUp, seed: int) -> Any:
    """Train a tiny model on generated solutions; the loss is on the solutions alone."""
    model = tiny_llama(seed)
    stream = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), spec.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: min(1.0, update / 50) * 0.5 * (1 + math.cos(math.pi * update / spec.updates))
    )
    watched = problems(_LOOKED_AT, steps=spec.steps, seed=-1)
    model.train()
    for update in tqdm(range(spec.updates), desc="warming up the starting policy", unit="update", leave=False):
        ids, labels = examples(spec, stream)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (
            spec.solves is not None
            and update % _LOOK == 0
            and sampled_accuracy(model, watched, temperature=0.0, seed=0) >= spec.solves
        ):
            break
    return model.eval()


def examples(spec: WarmUp, stream: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts with their noisy solutions: token ids and labels, both (batch, tokens)."""
    digits = torch.tensor([_TOKEN[str(digit)] for digit in range(10)])
    operators = torch.tensor([_TOKEN[operator] for operator in OPERATORS])
    size = (spec.batch, spec.steps)
    chosen = torch.randint(len(OPERATORS), size, generator=stream)
    operands = torch.randint(10, size, generator=stream)
    value = torch.randint(10, (spec.batch,), generator=stream)
    wrong = torch.rand(size, generator=stream) < spec.noise
    shift = torch.randint(1, 10, size, generator=stream)

    def fill(character: str) -> torch.Tensor:
        return torch.full((spec.batch,), _TOKEN[character])

    prompt, solution = [digits[value]], []
    for step in range(spec.steps):
        operator, operand = chosen[:, step], operands[:, step]
        results = torch.stack([value + operand, value - operand, value * operand])  # in the order of OPERATORS
        result = results.gather(0, operator[None])[0] + wrong[:, step] * shift[:, step]
        prompt += [operators[operator], digits[operand]]
        solution += [digits[value], operators[operator], digits[operand], fill("="), digits[result % 10], fill(";")]
        value = result % 10
    solution[-1] = torch.full((spec.batch,), _EOS)
    ids = torch.stack([*prompt, fill(">"), *solution], 1)
    labels = ids.clone()
    labels[:, : len(prompt) + 1] = -100  # the index that the loss leaves out
    return ids, labels


def sampled_accuracy(model: Any, asked: Sequence[Problem], *, temperature: float, seed: int) -> float:
    """Share of problems that a model solves without healing; temperature 0 is greedy."""
    tokenizer = make_tokenizer()
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    drawn = rollout(
        model.to(device),
        [tokenizer(problem.prompt)["input_ids"] for problem in asked],
        HealingPolicy(mode="off"),
        max_tokens=STEP_TOKENS * max(len(problem.steps) for problem in asked),
        temperature=temperature,
        eos_ids=[_EOS],
        seed=seed,
    )
    model.train(training)
    texts = tokenizer.batch_decode([one.tokens for one in drawn], skip_special_tokens=True)
    return accuracy(asked, texts)
