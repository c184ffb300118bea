"""Healing inside vLLM's scheduler: hold the open segment back, score it, commit it or erase and resume in place.

Works under any of vLLM's front ends: ``LLM(.., scheduler_cls=HealingScheduler)``, ``vllm serve --scheduler-cls
e3rl_core.engines.vllm_scheduler.HealingScheduler``, `AsyncLLM`. A deployment's defaults come from
``additional_config={"healing": {..}}``, a request's own from ``SamplingParams(extra_args={"healing": ..})``.

Rules live in `healer`, undocumented vLLM names in `vllm_compat`; this module is the wire between them.
"""

from __future__ import annotations

import re
import time
from typing import Any

import vllm
from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.utils import check_stop
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from e3rl_core.engines import vllm_compat as compat
from e3rl_core.engines.vllm_request import OpenRequest, check_settings, defaults_of, unworkable_with
from e3rl_core.engines.vllm_text import RequestText
from e3rl_core.errors import EngineRefusal, PolicyError
from e3rl_core.healer import Commit, Erase, Healer, Verdict
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Profile
from e3rl_core.threshold import GroupHistory

logger = init_logger(f"vllm.{__name__}")

#: vLLM names the i-th of n samples of request R ``i_R``.
_SIBLING = re.compile(r"(\d+)_(.+)", re.DOTALL)


def register() -> None:
    """Entry point of the `vllm.general_plugins` group: runs in every vLLM process, changes nothing until asked."""
    compat.install_worker_hooks()
    compat.install_frontend_hooks(check_settings)


class HealingScheduler(AsyncScheduler):
    """vLLM's async scheduler with healing; requests with mode ``off`` take the stock path.

    Raises:
        EngineRefusal: at construction, where something in the deployment cannot be rolled back.
        PolicyError, ProfileError: at construction, for wrong default settings.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        compat.check_version(vllm.__version__)
        super().__init__(*args, **kwargs)
        compat.refuse_unhealable(self.vllm_config, self.kv_cache_config)
        if not compat.worker_hooks_installed():
            raise EngineRefusal(
                "healing needs its vLLM plugin 'e3rl' in every process: add e3rl to VLLM_PLUGINS, or unset it"
            )
        self.defaults = defaults_of(self.vllm_config)
        self._text = RequestText(self.vllm_config)
        self._surgery = compat.RequestSurgery(self)
        self._open: dict[str, OpenRequest] = {}
        self._groups: dict[str, tuple[GroupHistory, set[str]]] = {}
        self._redraws: dict[str, Any] = {}
        self._touched: dict[str, OpenRequest] = {}
        self._step: ModelRunnerOutput | None = None
        self._in_grammar: set[str] = set()
        self._accept_tokens = compat.gate_grammar(self, self._grammar_verdict)
        compat.cap_prefix_cache(self, self._frontier)

    def set_profile(self, profile: Profile | None) -> None:
        """Score requests that arrive from now on against this profile; None: against the default prior."""
        self.defaults = self.defaults.model_copy(update={"profile": profile})

    # --- requests come and go -----------------------------------------------------------------------------------------

    def add_request(self, request: Request) -> None:
        if request.request_id not in self.requests and _can_heal(request):
            self._open_request(request)
        super().add_request(request)

    def _open_request(self, request: Request) -> None:
        try:
            policy = self._policy(request)
        except PolicyError as error:  # the front end has checked it: only a foreign front end gets here
            logger.error("Request refused: %s", error)
            self.grammar_compile_error_reqs.add(request.request_id)
            return
        if policy.mode == "off":
            return
        reasoner = self._text.reasoner(request) if policy.scope == "reasoning" else None
        if reasoner is not None and reasoner.is_reasoning_end(request.prompt_token_ids or []):
            return
        group, member = self._join_group(request.request_id)
        healer = Healer(policy, self.defaults.profile, group, member)
        self._open[request.request_id] = OpenRequest.begin(request, healer, reasoner)

    def _policy(self, request: Request) -> HealingPolicy:
        wanted = (request.sampling_params.extra_args or {}).get(compat.KEY)
        return self.defaults.policy if wanted is None else self.defaults.policy.updated(wanted)

    def _join_group(self, request_id: str) -> tuple[GroupHistory | None, int]:
        match = _SIBLING.fullmatch(request_id)
        if match is None:
            return None, 0
        history, members = self._groups.setdefault(match[2], (GroupHistory(), set()))
        members.add(request_id)
        return history, int(match[1])

    def _leave_group(self, request_id: str) -> None:
        match = _SIBLING.fullmatch(request_id)
        if match is None or match[2] not in self._groups:
            return
        members = self._groups[match[2]][1]
        members.discard(request_id)
        if not members:
            del self._groups[match[2]]

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        if self._open.pop(request.request_id, None) is not None:
            self._leave_group(request.request_id)
            self._redraws.pop(request.request_id, None)
        return super()._free_request(request, *args, **kwargs)

    # --- what the hooks ask -------------------------------------------------------------------------------------------

    def _frontier(self, request: Request) -> int | None:
        """Tokens (prompt included) that may enter the prefix cache; None: all of them."""
        open_request = self._open.get(request.request_id)
        return open_request.frontier if open_request is not None and open_request.withholds else None

    def _grammar_verdict(self, request: Request) -> bool | None:
        """Held tokens went into the grammar as they came; None: vLLM shall accept this step's tokens itself."""
        return True if request.request_id in self._in_grammar else None

    # --- a step goes out, a step comes back ---------------------------------------------------------------------------

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        self._hold_back_last_tokens()
        output = super().schedule(*args, **kwargs)
        if self._redraws:
            resumed = self._redraws.keys() & output.num_scheduled_tokens.keys()
            compat.attach_redraws(output, {req_id: self._redraws.pop(req_id) for req_id in resumed})
        return output

    def _hold_back_last_tokens(self) -> None:
        """Schedule nothing behind the last token of a redraw at another temperature, where its length foretells it.

        That step would sample at the redraw's temperature, and be dropped.
        """
        for req_id, open_request in self._open.items():
            if open_request.redrawn:
                request = self.requests[req_id]
                if open_request.healer.tokens_left <= request.num_output_placeholders:  # the last one is in flight
                    self._surgery.sit_out(request)

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> dict[int, EngineCoreOutputs]:
        self._step = model_runner_output
        self._touched.clear()
        self._in_grammar.clear()
        self._withhold_prompt_logprobs(model_runner_output)
        outputs: dict[int, EngineCoreOutputs] = super().update_from_output(scheduler_output, model_runner_output)
        if self._open or self._touched:
            self._complete(outputs)
        self._step = None
        return outputs

    def _withhold_prompt_logprobs(self, step: ModelRunnerOutput) -> None:
        """They come with the first sampled token, which may be held: keep them for the first output."""
        for req_id, tensors in step.prompt_logprobs_dict.items():
            open_request = self._open.get(req_id)
            if tensors is not None and open_request is not None and open_request.withholds:
                open_request.prompt_logprobs = tensors
                step.prompt_logprobs_dict[req_id] = None

    def _complete(self, outputs: dict[int, EngineCoreOutputs]) -> None:
        """Give this step's outputs what they carry beyond stock: committed logprobs, ops; and send ops on their own."""
        for core_outputs in outputs.values():
            for output in core_outputs.outputs:
                open_request = self._touched.pop(output.request_id, None) or self._open.get(output.request_id)
                if open_request is not None:
                    open_request.complete(output)
        for req_id, open_request in self._touched.items():
            if open_request.live and open_request.ops:
                output = EngineCoreOutput(request_id=req_id, new_token_ids=[])
                open_request.complete(output)
                outputs.setdefault(open_request.client_index, EngineCoreOutputs()).outputs.append(output)

    def _update_request_with_output(
        self, request: Request, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        open_request = self._open.get(request.request_id)
        status = request.status
        new_token_ids, stopped = super()._update_request_with_output(request, new_token_ids, is_stale)
        if open_request is None:
            return new_token_ids, stopped
        self._touched[request.request_id] = open_request  # its surprisals are reported to its end, healed or not
        if not open_request.healer.active:
            return new_token_ids, stopped
        if open_request.withholds:
            self._in_grammar.add(request.request_id)
            if not self._accept_tokens(request, new_token_ids):
                request.status = RequestStatus.FINISHED_ERROR
                return open_request.release_open(), True
            return self._heal(request, open_request, new_token_ids[-1], status, stopped)
        verdict = self._feed(request, open_request, new_token_ids[-1], stopped)
        if isinstance(verdict, Commit):  # shadow: what would be erased was released as it came
            open_request.note_commit(verdict, recomputed=0)
        return new_token_ids, stopped

    def _heal(
        self, request: Request, open_request: OpenRequest, token: int, status: RequestStatus, stopped: bool
    ) -> tuple[list[int], bool]:
        """Feed the healer and do what it says; `status` is the request's from before its stop check."""
        verdict = self._feed(request, open_request, token, stopped)
        if isinstance(verdict, Commit):
            return list(verdict.draw.tokens), self._commit(request, open_request, verdict, status, stopped)
        if isinstance(verdict, Erase):
            return self._erase(request, open_request, verdict, status), False
        return [], False

    def _feed(self, request: Request, open_request: OpenRequest, token: int, stopped: bool) -> Verdict:
        assert self._step is not None
        surprisal = open_request.read_logprobs(self._step, request.request_id, token)
        if open_request.live and open_request.withholds:
            open_request.note_draft(token)
        return open_request.healer.feed(
            token,
            surprisal,
            boundary=self._text.boundary(token),
            final=stopped,
            closes=bool(open_request.stop) and self._text.completes_stop(request, open_request.stop),
            reasoning_over=open_request.ends_reasoning(request, token),
            late=open_request.deadline is not None and time.monotonic() > open_request.deadline,
        )

    # --- the two ends of a segment ------------------------------------------------------------------------------------

    def _erase(self, request: Request, open_request: OpenRequest, erase: Erase, status: RequestStatus) -> list[int]:
        """Back to the checkpoint; returns the tokens released with it: the head of a draw erased from its onset."""
        stays = list(erase.head.draw.tokens) if erase.head is not None else []
        self._surgery.truncate(request, open_request.frontier + len(stays))
        self._surgery.revive(request, status)
        if open_request.grammar is not None:
            open_request.grammar.restore(request)
            if stays:
                self._accept_tokens(request, stays)
        if erase.head is not None:
            open_request.advance(request)
            open_request.note_commit(erase.head, recomputed=0)
        self._redraw(request, open_request)
        wasted = self._surgery.requeue(request, open_request.frontier - 1)
        open_request.note_erase(erase, recomputed=wasted)
        return stays

    def _commit(
        self, request: Request, open_request: OpenRequest, commit: Commit, status: RequestStatus, stopped: bool
    ) -> bool:
        """Release a segment; returns whether the response ends with it."""
        computed: int | None = None
        if commit.reinserted:
            computed = open_request.frontier
            stopped = self._reinsert(request, open_request, commit, status)
        elif open_request.redrawn:  # the next segment's first draw samples as the request asked: drop what is in flight
            computed = request.num_tokens - 1
        open_request.advance(request)
        if status == RequestStatus.RUNNING and not commit.reinserted:
            self.kv_cache_manager.cache_blocks(request, request.num_computed_tokens - request.num_output_placeholders)
        recomputed = 0
        if computed is not None and not stopped:
            self._redraw(request, open_request)
            recomputed = self._surgery.requeue(request, computed)
            if commit.reinserted:  # its last token would have been fed anyway, to begin the next segment
                recomputed += len(commit.draw.tokens) - 1
        open_request.note_commit(commit, recomputed)
        return stopped

    def _reinsert(self, request: Request, open_request: OpenRequest, commit: Commit, status: RequestStatus) -> bool:
        """Put an earlier draw in place of the last one (`keep: best`); returns whether the response ends with it."""
        self._surgery.truncate(request, open_request.frontier)
        self._surgery.revive(request, status)
        request.append_output_token_ids(list(commit.draw.tokens))
        if open_request.grammar is not None:
            open_request.grammar.restore(request)
            self._accept_tokens(request, list(commit.draw.tokens))
        return commit.draw.final and check_stop(request, self.max_model_len)

    def _redraw(self, request: Request, open_request: OpenRequest) -> None:
        """Set the sampling parameters of the next draw at the healer's position."""
        request.sampling_params = open_request.draw_params()
        self._redraws[request.request_id] = request.sampling_params


def _can_heal(request: Request) -> bool:
    """Whether this request can be rolled back; asking for healing by name where it cannot is a 400 at the front."""
    params = request.sampling_params
    return (
        params is not None and not request.resumable and request.prompt_embeds is None and not unworkable_with(params)
    )
