"""Rollouts from our vLLM scheduler, in the trainer's own process: fast sampling, new weights every step.

With several training processes each has a whole engine on its own device (vLLM's `external_launcher`, tensor parallel
size 1). Engines join the trainer's process group when they start, and sample without a word to each other: ranks may
erase at their own times. New weights are gathered where the model is sharded, by all ranks at once.

The engine's op log says everything that a `Rollout` holds: each draw's tokens, raw log-probabilities, score, threshold
and verdict. It does not say log-probabilities at another temperature than 1, so that one is refused.

What differs from the torch engine:
  - siblings of one group share their statistics (F4) only with those of the same policy: in vLLM a group is one request
    with n > 1, and a request has one policy. So plain rows do not count for those that erase, nor the other way round
  - a row's random stream is a different one, and numbers differ by rounding: rollouts repeat within an engine, not
    across the two
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from vllm import SamplingParams

from e3rl_core.engines import vllm_compat as compat
from e3rl_core.engines.torch_rollout import Rollout, RolloutDraw
from e3rl_core.errors import PolicyError, RecipeError, TrainingError
from e3rl_core.events import BudgetOp, CommittedOp, ErasedOp, load_ops
from e3rl_core.healer import Totals
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile
from e3rl_core.uncertainty import Uncertainty
from e3rl_training import vllm_engine
from e3rl_training.sharding import gathered

#: The one temperature at which a raw log-probability is the one that was sampled with.
_TEMPERATURE: Final = 1.0

_MEMORY_SETTINGS: Final = ("gpu_memory_utilization", "kv_cache_memory_bytes")


@dataclass(frozen=True, slots=True)
class _Request:
    """Rows that vLLM samples as one request: one prompt, one policy, statistics shared."""

    prompt: tuple[int, ...]
    policy: HealingPolicy
    rows: tuple[int, ...]


class VllmRollouts:
    """Rollouts of a vLLM engine in this process. One training process, one engine, one device; start them together.

    `engine_settings` are those of `vllm.LLM`. Unless they say otherwise the KV cache gets 1 GiB on CPUs, and the whole
    engine 30 % of a GPU's memory, because the trainer lives there too; CPUs run eagerly, without a compiler. `dtype`
    is the model's own: let it be the trainer's, or its log-probabilities are not those that were sampled with.

    Raises:
        RecipeError: a temperature other than 1, one engine over several processes, or settings that vLLM does not take.
        EngineRefusal: a deployment that cannot be healed.
    """

    def __init__(
        self, model: str, *, temperature: float, top_p: float, eos_ids: Sequence[int], **engine_settings: Any
    ) -> None:
        if temperature != _TEMPERATURE:
            raise RecipeError(
                f"training.temperature: is {temperature}, vLLM rollouts know {_TEMPERATURE} alone (the engine reports "
                "raw log-probabilities); use rollout_engine: torch"
            )
        self._top_p = top_p
        self._eos_ids = list(eos_ids)
        self._group_is_ours = not torch.distributed.is_initialized()
        settings = {**_defaults(engine_settings), **engine_settings, **_among_ranks(engine_settings)}
        try:
            self._llm = vllm_engine.start(model, settings)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"training.vllm_settings: {' '.join(str(error).split())[:300]}") from error
        self._scheduler = compat.in_process_scheduler(self._llm)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        policies: Sequence[HealingPolicy],
        *,
        groups: Sequence[int],
        max_tokens: int,
        profile: Profile | None,
        seed: int,
    ) -> list[Rollout]:
        """One response per prompt, (_B,); rows of one group, prompt and policy share their statistics (F4).

        Log-probabilities are those before top-p. Every row draws from a random stream of its own: seed + its row,
        where the rows of each request stand side by side.

        Raises:
            PolicyError: a policy asks for what the engine does not report.
            RecipeError: `max_model_len` is too short for a prompt and `max_tokens`.
        """
        for policy in set(policies):
            _refuse_unreported(policy)
        self._check_room(prompts, max_tokens)
        self._scheduler.set_profile(profile)
        self._forget_prefixes()
        requests = _requests(prompts, policies, groups)
        params = []
        first = seed
        for request in requests:
            params.append(self._params(request, max_tokens, first))
            first += len(request.rows)
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(request.prompt)} for request in requests], params, use_tqdm=False
        )
        rollouts: dict[int, Rollout] = {}
        for request, output in zip(requests, outputs, strict=True):
            logs = getattr(output, "healing", [[] for _ in request.rows])  # none where nothing is scored
            for row, choice, log in zip(request.rows, output.outputs, logs, strict=True):
                rollouts[row] = _rollout(len(request.prompt), choice, log)
        return [rollouts[row] for row in range(len(prompts))]

    def load_weights(self, model: Any) -> None:
        """Sample from this Hugging Face model from now on. Adapters (PEFT) are merged for the time of the call.

        Sharded weights (FSDP2) are gathered one by one: a collective, every rank calls this at the same point.
        """
        with _checkpoint_weights(model) as weights:
            compat.reload_weights(self._llm, ((name, gathered(tensor)) for name, tensor in weights.items()))

    def close(self) -> None:
        """Give back the engine's memory, and vLLM's process group if nobody had one before."""
        del self._scheduler
        compat.shut_down(self._llm, with_process_group=self._group_is_ours)
        del self._llm
        gc.collect()

    def _params(self, request: _Request, max_tokens: int, seed: int) -> SamplingParams:
        policy = request.policy.model_copy(update={"return_erased": True, "stream": "committed"})
        return SamplingParams(
            n=len(request.rows),
            temperature=_TEMPERATURE,
            top_p=self._top_p,
            max_tokens=max_tokens,
            seed=seed,
            ignore_eos=True,  # the model's own list of them: a response ends with `eos_ids`, and no others
            stop_token_ids=self._eos_ids,
            detokenize=False,
            logprobs=0 if policy.mode == "off" else None,  # else the op log has them
            extra_args={compat.KEY: policy.model_dump(mode="json")},
        )

    def _check_room(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
        longest = max(map(len, prompts), default=0)
        room = self._llm.model_config.max_model_len
        if longest + max_tokens > room:
            raise RecipeError(
                f"training.vllm_settings.max_model_len: is {room}, a prompt of {longest} tokens and a response of "
                f"{max_tokens} need {longest + max_tokens}"
            )

    def _forget_prefixes(self) -> None:
        """What is cached was computed with older weights; and a call must not depend on those before it."""
        if not self._llm.reset_prefix_cache():
            raise TrainingError("vLLM rollouts: requests of an earlier, interrupted call are still open; start anew")


def _among_ranks(given: Mapping[str, Any]) -> dict[str, Any]:
    """What an engine must know where it is one of several: the trainer's launcher has started its process."""
    ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if ranks == 1:
        return {}
    for name, size in given.items():
        if name.endswith("_parallel_size") and size != 1:
            raise RecipeError(
                f"training.vllm_settings.{name}: is {size}, but each of the {ranks} training processes has an engine "
                "of its own; leave it out"
            )
    return {"distributed_executor_backend": "external_launcher"}


def _refuse_unreported(policy: HealingPolicy) -> None:
    """Refuse what the op log does not report, and what the loss could then not score."""
    erases = policy.mode == "on"
    wrong = {
        "uncertainty.signal": (policy.uncertainty.signal != "surprisal", "vLLM reports surprisals only"),
        "scope": (policy.scope != "all", "what lies outside the scope would not be reported"),
        "keep": (erases and policy.keep != "last", "the draw it throws away would not be reported"),
        "retry.temperature": (
            erases and policy.retry.temperature_for(_TEMPERATURE) != _TEMPERATURE,
            f"vLLM rollouts know temperature {_TEMPERATURE} alone",
        ),
    }
    for setting, (applies, why) in wrong.items():
        if applies and policy.mode != "off":
            raise PolicyError(f"training.healing.{setting}", f"{why}; leave it out, or use rollout_engine: torch")


def _defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Where vLLM's own do not fit: it has not the machine to itself."""
    if any(name in given for name in _MEMORY_SETTINGS):
        return {}
    return {"gpu_memory_utilization": 0.3} if torch.cuda.is_available() else {"kv_cache_memory_bytes": 1 << 30}


def _requests(
    prompts: Sequence[Sequence[int]], policies: Sequence[HealingPolicy], groups: Sequence[int]
) -> list[_Request]:
    """Rows of one group, policy and prompt together. Those that may erase first: they take longer."""
    rows: dict[tuple[int, HealingPolicy, tuple[int, ...]], list[int]] = {}
    for row, key in enumerate(zip(groups, policies, map(tuple, prompts), strict=True)):
        rows.setdefault(key, []).append(row)
    requests = [_Request(prompt, policy, tuple(found)) for (_, policy, prompt), found in rows.items()]
    return sorted(requests, key=lambda request: request.policy.mode != "on")


@contextmanager
def _checkpoint_weights(model: Any) -> Iterator[dict[str, torch.Tensor]]:
    """The model's weights under the names of its checkpoint, adapters merged in as long as this is open.

    Merged weights are put back from a copy: taking an adapter out again would round, a bit more every step.
    """
    if not hasattr(model, "merge_adapter"):
        yield model.state_dict()
        return
    base = model.get_base_model()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items() if ".base_layer." in name}
    model.merge_adapter()
    try:
        yield {
            name.replace(".base_layer.", ".").replace(f".modules_to_save.{model.active_adapter}.", "."): tensor
            for name, tensor in base.state_dict().items()
            if model.prefix not in name and ".original_module." not in name
        }
    finally:
        model.unmerge_adapter()
        merged = base.state_dict()
        for name, tensor in before.items():
            merged[name].copy_(tensor)


def _rollout(prompt_length: int, choice: Any, log: list[dict[str, Any]]) -> Rollout:
    """One response from vLLM's `CompletionOutput` and its op log."""
    tokens: list[int] = []
    logprobs: list[float] = []
    draws: list[RolloutDraw] = []
    totals = Totals()
    recomputed = 0
    for op in load_ops(log):
        if isinstance(op, BudgetOp):
            totals.exhausted.add(op.budget)
        elif isinstance(op, ErasedOp | CommittedOp):
            draw = _draw(op, start=len(tokens))
            draws.append(draw)
            recomputed += op.recomputed
            if draw.kept:
                tokens += draw.tokens
                logprobs += draw.logprobs
                totals.segments += 1
                totals.committed_tokens += len(draw.tokens)
            else:
                totals.erasures += 1
                totals.erased_tokens += len(draw.tokens)
    if not log:
        tokens = list(choice.token_ids)
        logprobs = [entry[token].logprob for entry, token in zip(choice.logprobs, tokens, strict=True)]
    assert tokens == list(choice.token_ids), "the op log and the response differ"
    assert choice.finish_reason in ("stop", "length"), choice.finish_reason
    return Rollout(
        tokens=tuple(tokens),
        surprisals=tuple(-logprob for logprob in logprobs),
        logprobs=tuple(logprobs),
        draws=tuple(draws),
        finish=choice.finish_reason,
        totals=totals,
        # The prompt counts in full, whether or not the prefix cache had a part of it from a sibling.
        forward_tokens=prompt_length + len(tokens) + totals.erased_tokens + recomputed - 1,
    )


def _draw(op: ErasedOp | CommittedOp, start: int) -> RolloutDraw:
    assert op.token_ids is not None
    assert op.logprobs is not None
    score = op.uncertainty
    return RolloutDraw(
        segment=op.segment,
        attempt=op.attempt,
        start=start,
        tokens=tuple(op.token_ids),
        surprisals=tuple(-logprob for logprob in op.logprobs),
        logprobs=tuple(op.logprobs),
        temperature=_TEMPERATURE,
        uncertainty=Uncertainty(score.u, score.mean, score.max, score.slope),
        threshold=op.threshold,
        kept=isinstance(op, CommittedOp),
        reason=op.reason,
        limit=op.limit if isinstance(op, CommittedOp) else None,
    )
