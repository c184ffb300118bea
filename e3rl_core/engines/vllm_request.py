"""One healing request inside vLLM's scheduler: what is held, what is pending, how the next draw samples."""

from __future__ import annotations

import copy
import functools
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput

from e3rl_core.engines import vllm_compat as compat
from e3rl_core.errors import PolicyError
from e3rl_core.events import BudgetOp, CommittedOp, DraftedOp, ErasedOp, committed_op, dump_ops, erased_op
from e3rl_core.healer import Commit, Erase, Healer, Limit
from e3rl_core.profile import Defaults

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreOutput
    from vllm.v1.request import Request

#: A surprisal above this (a token the model gave no mass to) counts as this; nats.
SURPRISAL_CEILING = 100.0

_LogprobRow = tuple[np.ndarray, np.ndarray, int]


def unworkable_with(params: SamplingParams) -> list[str]:
    """Sampling parameters that healing cannot roll back or score, by name."""
    found = {
        "logprobs -1": params.logprobs == -1,
        "logprob_token_ids": params.logprob_token_ids is not None,
        "prompt_logprob_token_ids": params.prompt_logprob_token_ids is not None,
        "thinking_token_budget": params.thinking_token_budget is not None,
        "trace_decode_token_ids": bool(params.trace_decode_token_ids),
        "a structured-output backend other than xgrammar": not compat.grammar_rolls_back(params),
    }
    return [name for name, present in found.items() if present]


def check_settings(config: VllmConfig, params: SamplingParams) -> None:
    """Refuse a request whose own healing settings are wrong or cannot work with its other parameters.

    Raises:
        PolicyError: naming the field.
    """
    wanted = (params.extra_args or {}).get(compat.KEY)
    policy = defaults_of(config).policy.updated(wanted)
    if policy.mode == "off":
        return
    if policy.uncertainty.signal != "surprisal":
        raise PolicyError("healing.uncertainty.signal", "vLLM reports surprisals only, use 'surprisal'")
    if policy.scope == "reasoning" and not config.structured_outputs_config.reasoning_parser:
        raise PolicyError("healing.scope", "'reasoning' needs a server started with --reasoning-parser")
    unworkable = unworkable_with(params)
    if unworkable:
        raise PolicyError("healing.mode", f"'{policy.mode}' does not work with {', '.join(unworkable)}, use 'off'")


def defaults_of(config: VllmConfig) -> Defaults:
    """The deployment's defaults, for front end and scheduler alike; the profile file is read once, not per request.

    Raises:
        PolicyError, ProfileError: the deployment's settings are wrong.
    """
    return _resolved(json.dumps(compat.settings_of(config), sort_keys=True, default=str))


@functools.lru_cache(maxsize=4)
def _resolved(settings: str) -> Defaults:
    return Defaults.resolve(json.loads(settings))


def derived_seed(seed: int, segment: int, attempt: int) -> int:
    """A seed of its own for every draw: redraws must differ from what they replace, and be repeatable."""
    mixed = (seed * 0x9E3779B97F4A7C15 + segment * 0xBF58476D1CE4E5B9 + attempt * 0x94D049BB133111EB) & (2**64 - 1)
    return (mixed ^ (mixed >> 31)) & (2**63 - 1)


@dataclass(slots=True)
class OpenRequest:
    """State beyond vLLM's `Request`; O(open segment)."""

    healer: Healer
    base_params: SamplingParams
    """The request's own sampling parameters, plus the surprisal as a logprob."""
    client_logprobs: int | None
    """How many top logprobs the client asked for; None: no logprobs."""
    client_index: int
    frontier: int
    """Tokens committed, the prompt included."""
    grammar: compat.GrammarMark | None
    deadline: float | None
    """Monotonic seconds after which nothing is erased."""
    stop: tuple[str, ...]
    reasoner: Any
    """vLLM's reasoning parser, where healing ends with the reasoning; else None."""
    redrawn: bool = False
    """The draw in the engine samples at another temperature than the request asked for."""
    prompt_logprobs: Any = None
    ops: list[dict[str, Any]] = field(default_factory=list)
    _rows: list[_LogprobRow] = field(default_factory=list)
    _earlier_rows: dict[int, list[_LogprobRow]] = field(default_factory=dict)
    _released_rows: list[_LogprobRow] = field(default_factory=list)
    _exhausted: set[Limit] = field(default_factory=set)

    @classmethod
    def begin(cls, request: Request, healer: Healer, reasoner: Any) -> OpenRequest:
        """Take a request into care: from here on the worker reports its sampled tokens' raw logprobs."""
        params = request.sampling_params
        request.sampling_params = compat.signal_params(params)
        milliseconds = healer.policy.budget.deadline_ms
        stop = params.stop
        return cls(
            healer=healer,
            base_params=request.sampling_params,
            client_logprobs=params.num_logprobs,
            client_index=request.client_index,
            frontier=request.num_tokens,
            grammar=compat.GrammarMark.of(request),
            deadline=None if milliseconds is None else time.monotonic() + milliseconds / 1000,
            stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
            reasoner=reasoner,
        )

    @property
    def withholds(self) -> bool:
        """Whether open tokens are kept from everyone."""
        return self.healer.holds and self.healer.active

    @property
    def live(self) -> bool:
        return self.healer.policy.stream == "live"

    def ends_reasoning(self, request: Request, token: int) -> bool:
        """Whether this token, the newest, ends the reasoning, and healing with it."""
        parser = self.reasoner
        return parser is not None and bool(parser.is_reasoning_end_streaming(request.all_token_ids, [token]))

    # --- logprobs ---------------------------------------------------------------------------------------------------

    def read_logprobs(self, step: ModelRunnerOutput, request_id: str, token: int) -> float:
        """The new token's surprisal, nats; keeps its logprob row if the client wants it with the commit."""
        logprobs = step.logprobs
        assert logprobs is not None, "the worker reported no logprobs for a healing request"
        row = step.req_id_to_index[request_id]
        if logprobs.cu_num_generated_tokens is not None:
            row = logprobs.cu_num_generated_tokens[row]
        values = logprobs.logprobs[row]
        if not logprobs.logprob_token_ids.size:  # someone in the batch wants the whole vocabulary: columns are ids
            ids = np.array([token], dtype=np.int32)
            values = values[token : token + 1]
        else:
            ids = logprobs.logprob_token_ids[row]
        if self.client_logprobs is not None and self.withholds:
            width = self.client_logprobs + 1
            rank = int(logprobs.sampled_token_ranks[row]) if logprobs.sampled_token_ranks.size else 0
            self._rows.append((ids[:width].copy(), values[:width].copy(), rank))
        surprisal = -float(values[0])
        return min(max(surprisal, 0.0), SURPRISAL_CEILING) if surprisal == surprisal else SURPRISAL_CEILING

    def _take_logprobs(self) -> LogprobsLists | None:
        rows, self._released_rows = self._released_rows, []
        if not rows:
            return None
        width = min(len(row[0]) for row in rows)
        return LogprobsLists(
            np.stack([row[0][:width] for row in rows]),
            np.stack([row[1][:width] for row in rows]),
            np.array([row[2] for row in rows]),
        )

    # --- how the next draw samples ----------------------------------------------------------------------------------

    def draw_params(self) -> SamplingParams:
        """Sampling parameters at the healer's position: the request's own for a first draw, else the retry's."""
        base, healer = self.base_params, self.healer
        params = copy.copy(base)
        if healer.attempt:
            params.temperature = healer.policy.retry.temperature_for(base.temperature)
        if base.seed is not None:
            params.seed = derived_seed(base.seed, healer.segment, healer.attempt)
        self.redrawn = params.temperature != base.temperature
        return params

    # --- what happens to the open segment ---------------------------------------------------------------------------

    def advance(self, request: Request) -> None:
        """Everything the request holds now is committed."""
        self.frontier = request.num_tokens
        self.grammar = compat.GrammarMark.of(request)

    def release_open(self) -> list[int]:
        """Give up healing and hand over what is held."""
        self._released_rows, self._rows = self._rows, []
        self.healer.active = False
        return list(self.healer.open_tokens)

    def note_draft(self, token: int) -> None:
        healer = self.healer
        op = {"op": "drafted", "segment": healer.segment, "attempt": healer.attempt, "token_ids": [token]}
        self.ops.append(op)

    def note_erase(self, erase: Erase, recomputed: int) -> None:
        policy = self.healer.policy
        if erase.head is not None and self.live:  # they were drafted as the head's
            self._note(DraftedOp(segment=erase.segment, attempt=0, token_ids=list(erase.draw.tokens)))
        if policy.keep == "best":
            self._earlier_rows[erase.draw.attempt] = self._rows
        self._rows = []
        temperature = policy.retry.temperature_for(self.base_params.temperature)
        self._note(erased_op(erase, temperature=temperature, recomputed=recomputed, with_tokens=policy.return_erased))

    def note_commit(self, commit: Commit, recomputed: int) -> None:
        kept = len(commit.draw.tokens)
        if commit.reinserted and self._earlier_rows:
            self._released_rows, self._rows = self._earlier_rows[commit.draw.attempt], []
        else:
            self._released_rows, self._rows = self._rows[:kept], self._rows[kept:]
        self._earlier_rows = {}
        exhausted = self.healer.totals.exhausted
        if len(exhausted) > len(self._exhausted):
            for limit in sorted(exhausted - self._exhausted):
                self._note(BudgetOp(budget=limit))
            self._exhausted = set(exhausted)
        self._note(committed_op(commit, recomputed=recomputed, with_tokens=self.healer.policy.return_erased))

    def _note(self, op: BudgetOp | CommittedOp | DraftedOp | ErasedOp) -> None:
        self.ops.extend(dump_ops([op]))

    # --- what leaves the engine -------------------------------------------------------------------------------------

    def complete(self, output: EngineCoreOutput) -> None:
        """Make vLLM's output of this step right: logprobs of what is released and no others, ops attached."""
        if self.client_logprobs is None:
            output.new_logprobs = None
        elif self.healer.holds and (self._released_rows or not output.new_token_ids):
            output.new_logprobs = self._take_logprobs()
        if self.prompt_logprobs is not None and output.new_token_ids:
            output.new_prompt_logprobs_tensors, self.prompt_logprobs = self.prompt_logprobs, None
        if self.ops:
            compat.put_ops(output, self.ops)
            self.ops = []
