"""In the API's process: wrong settings become a 400, and ops are taken off outputs before vLLM merges them."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from e3rl_core.engines.vllm_compat.contract import KEY
from e3rl_core.engines.vllm_compat.ops import take_ops
from e3rl_core.errors import PolicyError

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams


@dataclass(slots=True)
class TappedRequest:
    """One choice of one request, as vLLM's output processor knows it, at the moment its ops arrive."""

    state: Any
    finished: bool
    """Whether this output ended the choice (by the engine, or by a stop string found in its text)."""

    @property
    def request_id(self) -> str:
        """The id the caller of `generate` chose; shared by all choices of a request with n > 1."""
        return str(self.state.external_req_id)

    @property
    def choice(self) -> int:
        return int(self.state.request_index)

    @property
    def text(self) -> str:
        """All committed text so far, the part withheld for stop strings included."""
        return str(getattr(self.state.detokenizer, "output_text", ""))

    @property
    def released_chars(self) -> int:
        """How many characters of `text` may be shown: all but what could still become a stop string."""
        withheld = 0 if self.finished else getattr(self.state.detokenizer, "stop_buffer_length", 0)
        return max(0, len(self.text) - withheld)

    @property
    def token_ids(self) -> Sequence[int]:
        """All committed tokens so far, without the prompt."""
        ids: Sequence[int] = self.state.detokenizer.output_token_ids
        return ids

    @property
    def arrival_time(self) -> float | None:
        """When the request arrived, seconds since the epoch; None where vLLM's statistics are off."""
        stats = self.state.stats
        return None if stats is None else float(stats.arrival_time)

    def draft_decoder(self) -> Callable[[int], str]:
        """A decoder of further token ids that starts where the committed text ends, and leaves it untouched."""
        detokenizer = copy.copy(self.state.detokenizer)
        if not hasattr(detokenizer, "decode_next"):
            return lambda token_id: ""
        for name in ("stream", "tokens"):
            if hasattr(detokenizer, name):
                setattr(detokenizer, name, copy.deepcopy(getattr(detokenizer, name)))
        decode: Callable[[int], str] = detokenizer.decode_next
        return decode


OutputTap = Callable[[TappedRequest, list[dict[str, Any]]], None]
PolicyCheck = Callable[["VllmConfig", "SamplingParams"], None]

_taps: list[OutputTap] = []
_installed = False


def add_output_tap(tap: OutputTap) -> None:
    """Have `tap(request, ops)` called for every engine output that carries ops.

    It runs right after vLLM has processed that output, before the event loop turns, and in the engine's order:
    text of `request` includes the tokens the output brought. Nothing is merged and nothing is lost.
    """
    install_frontend_hooks()
    _taps.append(tap)


def remove_output_tap(tap: OutputTap) -> None:
    """Undo `add_output_tap`."""
    _taps.remove(tap)


def install_frontend_hooks(check: PolicyCheck | None = None) -> None:
    """Take ops off engine outputs, and turn bad healing settings into vLLM's own validation error. Idempotent."""
    global _installed
    if _installed:
        return
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.engine.output_processor import OutputProcessor

    process_outputs = OutputProcessor.process_outputs
    validate_params = InputProcessor._validate_params

    @functools.wraps(process_outputs)
    def process_outputs_and_tap(self: Any, outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        tapped = []
        rest = []
        for output in outputs:
            ops = take_ops(output)
            if ops:
                state = self.request_states.get(output.request_id)
                if state is not None:
                    tapped.append((state, ops))
                if not output.new_token_ids and output.finish_reason is None:
                    continue
            rest.append(output)
        result = process_outputs(self, rest, *args, **kwargs)
        for state, ops in tapped:
            request = TappedRequest(state, finished=state.request_id not in self.request_states)
            for tap in _taps:
                tap(request, ops)
            if state.queue is None:
                _keep_for_offline(state, ops, result.request_outputs)
        return result

    @functools.wraps(validate_params)
    def validate_params_and_healing(self: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        from vllm.exceptions import VLLMValidationError

        result = validate_params(self, params, *args, **kwargs)
        if check is not None and (getattr(params, "extra_args", None) or {}).get(KEY) is not None:
            try:
                check(self.vllm_config, params)
            except PolicyError as error:
                raise VLLMValidationError(str(error), parameter=error.field) from None
        return result

    OutputProcessor.process_outputs = process_outputs_and_tap
    InputProcessor._validate_params = validate_params_and_healing
    _installed = True


def _keep_for_offline(state: Any, ops: list[dict[str, Any]], finished: list[Any]) -> None:
    """Without an event loop (`LLM.generate`) ops end up on the `RequestOutput`: `.healing`, ops per choice."""
    owner = state.parent_req or state
    if not hasattr(owner, "e3rl_ops"):
        owner.e3rl_ops = {}
    owner.e3rl_ops.setdefault(state.request_index, []).extend(ops)
    for output in finished:
        if output.request_id == state.external_req_id:
            output.healing = [owner.e3rl_ops[choice] for choice in sorted(owner.e3rl_ops)]
