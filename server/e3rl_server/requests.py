"""What a request may ask of healing: vLLM's request models with one more field, and the refusals.

Refusals come before anything is tokenised. Their order:
  1. two places that say different things    `healing` and `vllm_xargs.healing`
  2. the settings themselves                 unknown, mistyped, out of range, contradictory
  3. the deployment                          started without healing
  4. the endpoint's other fields             beam search, live events without a stream, background responses
  5. the engine                              `vllm_request.check_settings`: logprobs of everything, missing parsers, ..
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from e3rl_core.engines.vllm_compat import KEY, settings_of
from e3rl_core.engines.vllm_request import check_settings
from e3rl_core.engines.vllm_scheduler import HealingScheduler
from e3rl_core.errors import PolicyError
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import Defaults

#: Checked by `HealingPolicy`, which names the wrong field better than a union of types could.
Healing = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"enum": ["off", "shadow", "on"]}, {"type": "object"}, {"type": "null"}]}),
    Field(description="Self-healing decoding: a mode, or an object of settings."),
]

_ANY_LENGTH = 1 << 30


class HealingChatRequest(ChatCompletionRequest):  # type: ignore[misc]
    """POST /v1/chat/completions."""

    healing: Healing = None


class HealingCompletionRequest(CompletionRequest):  # type: ignore[misc]
    """POST /v1/completions."""

    healing: Healing = None


class HealingResponsesRequest(ResponsesRequest):  # type: ignore[misc]
    """POST /v1/responses."""

    healing: Healing = None


@dataclass(frozen=True)
class Deployment:
    """What healing this server does when a request says nothing, and what it can do at all."""

    config: Any
    defaults: Defaults
    heals: bool
    """Whether the engine runs under the healing scheduler."""
    tokenizer: Any = None

    @classmethod
    def of(cls, config: Any, tokenizer: Any = None) -> Deployment:
        """The deployment that a `VllmConfig` describes.

        Raises:
            PolicyError, ProfileError: the default settings are wrong.
        """
        scheduler = config.scheduler_config.get_scheduler_cls()
        heals = isinstance(scheduler, type) and issubclass(scheduler, HealingScheduler)
        settings = settings_of(config) if heals else {"mode": "off"}
        return cls(config, Defaults.resolve(settings), heals, tokenizer)

    def admit(self, request: Any) -> HealingPolicy:
        """The policy that a request runs under; writes it where the scheduler will find it.

        Raises:
            PolicyError: naming the field that is wrong or cannot be combined.
            VLLMValidationError: something else in the request is wrong.
        """
        wanted = _wanted(request)
        if wanted is None and getattr(request, "use_beam_search", False):
            return self.defaults.policy.model_copy(update={"mode": "off"})
        policy = self.defaults.policy if wanted is None else self.defaults.policy.updated(wanted)
        if policy.mode != "off":
            if wanted is not None:
                self._refuse_unworkable(request, wanted, policy)
            if policy.stream == "live" and not _streams(request):
                policy = policy.model_copy(update={"stream": "committed"})
                wanted = {"mode": policy.mode, **_said(wanted), "stream": "committed"}
        if wanted is not None:
            value = wanted if isinstance(wanted, str) else json.dumps(wanted)
            request.vllm_xargs = {**(request.vllm_xargs or {}), KEY: value}
            self._check_engine(request)
        return policy

    def _check_engine(self, request: Any) -> None:
        """Ask what vLLM would ask when a stream has begun already, too late for a 400."""
        params = request.to_sampling_params(_ANY_LENGTH, {})
        config = self.config
        if params.structured_outputs is not None:  # this also settles which backend takes the grammar
            params.verify(
                config.model_config, config.speculative_config, config.structured_outputs_config, self.tokenizer
            )
        check_settings(config, params)

    def _refuse_unworkable(self, request: Any, wanted: object, policy: HealingPolicy) -> None:
        if not self.heals:
            raise PolicyError(KEY, "this server runs without healing; start it with --healing on or --healing shadow")
        if getattr(request, "use_beam_search", False):
            raise PolicyError(f"{KEY}.mode", f"'{policy.mode}' does not work with use_beam_search, use 'off'")
        if _said(wanted).get("stream") == "live" and not _streams(request):
            raise PolicyError(f"{KEY}.stream", "'live' needs a request with stream true and without background")


def _streams(request: Any) -> bool:
    return bool(request.stream) and not getattr(request, "background", False)


def _wanted(request: Any) -> Any:
    """What the request says of healing; None: nothing."""
    in_xargs = (request.vllm_xargs or {}).get(KEY)
    if request.healing is None:
        return in_xargs
    if in_xargs is not None and in_xargs != request.healing:
        raise PolicyError(f"vllm_xargs.{KEY}", f"says something else than {KEY}, use one of them")
    return request.healing


def _said(wanted: object) -> dict[str, Any]:
    """The settings that a valid `healing` value spells out."""
    if isinstance(wanted, str):
        wanted = {"mode": wanted} if wanted in ("off", "shadow", "on") else json.loads(wanted)
    return dict(wanted) if isinstance(wanted, Mapping) else {}
