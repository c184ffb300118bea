"""Starting policies for the generated tasks, warmed up with supervision [ours].

A tiny Llama, trained from scratch on mod-chains, in two states:
    modchain-s1  trained on solutions in which 16 % of the steps are wrong: it knows the task, and sampling trips it
                 (greedy right, sampled often wrong: execution noise)
    modchain-s2  trained on clean solutions until greedy decoding solves half: what it lacks is knowledge
A real language model:
    smollm2-words  the embedded SmolLM2-135M-Instruct, shown solutions of word problems until it knows their form

All are plain Hugging Face folders that vLLM serves.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from e3rl_core.embedded.model import embedded_model
from e3rl_core.engines.torch_rollout import rollout
from e3rl_core.policy import HealingPolicy
from e3rl_training.modchain import ALPHABET, OPERATORS
from e3rl_training.tasks import TASKS, Problem, accuracy

#: The label that the loss leaves out.
_UNSCORED = -100

_PAD, _EOS = 0, 1
_SPECIAL = {"<pad>": _PAD, "<eos>": _EOS}
_TOKEN = {character: len(_SPECIAL) + place for place, character in enumerate(ALPHABET)}


@dataclass(frozen=True)
class WarmUp:
    """Supervised training from scratch, on mod-chains."""

    task: ClassVar[str] = "modchain"
    rising: ClassVar[int] = 50
    """Updates until the learning rate is reached."""
    fused: ClassVar[bool] = False

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

    def make(self, seed: int) -> tuple[Any, Any]:
        """The model and its tokenizer."""
        return warm_up(self, seed), make_tokenizer()


@dataclass(frozen=True)
class FineTune:
    """Supervised training of the embedded model, on word problems."""

    task: ClassVar[str] = "wordproblems"
    rising: ClassVar[int] = 10
    """Updates until the learning rate is reached."""
    fused: ClassVar[bool] = True
    """One pass over all weights, where there are many of them."""

    updates: int
    batch: int = 16
    steps: int = 4
    """Of a problem, at most."""
    learning_rate: float = 1e-4

    def make(self, seed: int) -> tuple[Any, Any]:
        """The model, in bfloat16, and its tokenizer."""
        return fine_tune(self, seed)


#: The built-in starting policies, by the name a recipe calls them.
POLICIES: dict[str, WarmUp | FineTune] = {
    "modchain-s1": WarmUp(noise=0.16),
    "modchain-s2": WarmUp(noise=0.0, solves=0.5),
    "smollm2-words": FineTune(updates=80),
}
#: Greedy accuracy is looked at every so many updates, on so many problems.
_LOOK, _LOOKED_AT = 10, 100
#: Added to a seed: solutions are shown of other problems than the ones that are trained on later.
_TAUGHT = 30_000


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


def starting_policy(name: str, cache: Path, seed: int, *, steps: int | None = None) -> Path:
    """The folder of a built-in starting policy; made once per seed (a minute or two on two cores).

    `steps` are those of the problems it is taught, where they are not to be the policy's own.
    """
    spec = POLICIES[name] if steps is None else replace(POLICIES[name], steps=steps)
    recipe = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:8]
    folder = cache / f"{name}-{recipe}-seed{seed}"
    if not folder.exists():
        aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        model, tokenizer = spec.make(seed)
        try:
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            os.replace(aside, folder)
        except OSError:
            if not folder.exists():  # another process was first: its folder is as good
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def warm_up(spec: WarmUp, seed: int) -> Any:
    """Train a tiny model on generated solutions."""
    model, tokenizer = tiny_llama(seed), make_tokenizer()
    stream = torch.Generator().manual_seed(seed)
    task = TASKS[spec.task]
    watched, room = task.problems(_LOOKED_AT, steps=spec.steps, seed=-1), task.tokens(spec.steps)

    def loss(_: int) -> torch.Tensor:
        ids, labels = examples(spec, stream)
        found: torch.Tensor = model(input_ids=ids, labels=labels).loss
        return found

    def done(update: int) -> bool:
        return (
            spec.solves is not None
            and update % _LOOK == 0
            and sampled_accuracy(model, tokenizer, watched, max_tokens=room, temperature=0.0, seed=0) >= spec.solves
        )

    return _supervise(model, spec, loss, done)


def fine_tune(spec: FineTune, seed: int) -> tuple[Any, Any]:
    """Train the embedded model on generated solutions."""
    folder = embedded_model()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # float32 weights: bfloat16 ones would round small updates away. Eager attention is the fastest one on CPUs here.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    asked = TASKS[spec.task].problems(spec.updates * spec.batch, steps=spec.steps, seed=_TAUGHT + seed)

    def loss(update: int) -> torch.Tensor:
        ids, mask, labels = padded(tokenizer, asked[update * spec.batch : (update + 1) * spec.batch])
        scored = labels[:, 1:] != _UNSCORED
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            # The logits of prompts and padding would be most of them, and all for nothing.
            logits = model.lm_head(hidden[:, :-1][scored])
        return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][scored])

    _supervise(model, spec, loss, lambda _: False)
    return model.to(torch.bfloat16), tokenizer


def _supervise(
    model: Any,
    spec: WarmUp | FineTune,
    loss: Callable[[int], torch.Tensor],
    done: Callable[[int], bool],
) -> Any:
    """Updates on the loss of one batch each, until they are over or `done(update)`."""
    optimizer = torch.optim.AdamW(
        model.parameters(), spec.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=spec.fused
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda update: min(1.0, update / spec.rising) * 0.5 * (1 + math.cos(math.pi * update / spec.updates)),
    )
    model.train()
    for update in tqdm(range(spec.updates), desc="warming up the starting policy", unit="update", leave=False):
        optimizer.zero_grad(set_to_none=False)  # in place: new pages for half a gigabyte cost more than adding to it
        loss(update).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if done(update):
            break
    return model.eval()


def padded(tokenizer: Any, asked: Sequence[Problem]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts with their solutions, padded on the right: token ids, attention mask, labels, all (batch, tokens).

    The labels are those of the solutions and their ends of sequence alone.
    """
    prompts = [tokenizer(problem.prompt)["input_ids"] for problem in asked]
    solutions = [[*tokenizer(problem.solution)["input_ids"], tokenizer.eos_token_id] for problem in asked]
    longest = max(len(prompt) + len(solution) for prompt, solution in zip(prompts, solutions, strict=True))
    ids, labels, mask = [], [], []
    for prompt, solution in zip(prompts, solutions, strict=True):
        blank = longest - len(prompt) - len(solution)
        ids.append([*prompt, *solution, *[tokenizer.eos_token_id] * blank])
        labels.append([*[_UNSCORED] * len(prompt), *solution, *[_UNSCORED] * blank])
        mask.append([1] * (longest - blank) + [0] * blank)
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)


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
    labels[:, : len(prompt) + 1] = _UNSCORED
    return ids, labels


def sampled_accuracy(
    model: Any, tokenizer: Any, asked: Sequence[Problem], *, max_tokens: int, temperature: float, seed: int
) -> float:
    """Share of problems that a model solves without healing; temperature 0 is greedy."""
    drawn = rollout(
        model,
        [tokenizer(problem.prompt)["input_ids"] for problem in asked],
        HealingPolicy(mode="off"),
        max_tokens=max_tokens,
        temperature=temperature,
        eos_ids=[tokenizer.eos_token_id],
        seed=seed,
    )
    return accuracy(asked, tokenizer.batch_decode([one.tokens for one in drawn], skip_special_tokens=True))
