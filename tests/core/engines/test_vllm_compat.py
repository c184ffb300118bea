"""The contract with vLLM: every undocumented name is where it was, and what cannot be healed is refused by name."""

from __future__ import annotations

import importlib
import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest

vllm = pytest.importorskip("vllm")

from e3rl_core.engines import vllm_compat as compat  # noqa: E402  (after the engine is known to be there)
from e3rl_core.errors import EngineRefusal  # noqa: E402


@pytest.mark.parametrize(
    ("module", "path"), [(module, path) for module, paths in compat.TOUCHED.items() for path in paths]
)
def test_every_name_touched_is_still_there(module: str, path: str) -> None:
    target: Any = importlib.import_module(module)
    for part in path.split("."):
        known = hasattr(target, part) or part in getattr(target, "__annotations__", {})
        assert known, f"vllm {vllm.__version__} moved {module}:{path}; read it anew and update vllm_compat"
        target = getattr(target, part, None)


@pytest.mark.parametrize(
    ("module", "owner", "name"),
    [
        (m, c, name)
        for m, classes in compat.TOUCHED_ATTRIBUTES.items()
        for c, names in classes.items()
        for name in names
    ],
)
def test_every_attribute_touched_is_still_set_by_its_constructor(module: str, owner: str, name: str) -> None:
    source = inspect.getsource(getattr(importlib.import_module(module), owner).__init__)
    assert re.search(rf"self\.{name}\b\s*[:=]", source), f"vllm {vllm.__version__} moved {module}:{owner}.{name}"


def test_the_installed_vllm_is_supported() -> None:
    compat.check_version(vllm.__version__)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "1.0.0"])
def test_other_minors_are_refused_with_both_versions(version: str) -> None:
    with pytest.raises(EngineRefusal, match=rf"{version}.*0\.32"):
        compat.check_version(version)


def deployment(**changes: Any) -> SimpleNamespace:
    """A config as far as refusals look at it: plain, unless `changes` (dotted paths, `__` for the dot) say more."""
    config = SimpleNamespace(
        kv_transfer_config=None,
        ec_transfer_config=None,
        speculative_config=None,
        parallel_config=SimpleNamespace(
            pipeline_parallel_size=1, decode_context_parallel_size=1, prefill_context_parallel_size=1
        ),
        model_config=SimpleNamespace(
            runner_type="generate",
            is_encoder_decoder=False,
            is_diffusion=False,
            is_multimodal_model=False,
            return_sampling_mask=False,
            logprobs_mode="raw_logprobs",
        ),
    )
    for path, value in changes.items():
        target: Any = config
        *parents, name = path.split("__")
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, name, value)
    return config


def caches(*specs: type) -> Any:
    groups = [SimpleNamespace(kv_cache_spec=spec.__new__(spec)) for spec in specs]
    return SimpleNamespace(kv_cache_groups=groups)


def full_attention() -> Any:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    return caches(FullAttentionSpec)


def test_a_plain_deployment_is_accepted() -> None:
    compat.refuse_unhealable(deployment(), full_attention())


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"kv_transfer_config": object()}, "--kv-transfer-config"),
        ({"ec_transfer_config": object()}, "--ec-transfer-config"),
        ({"speculative_config": object()}, "--speculative-config"),
        ({"parallel_config__pipeline_parallel_size": 2}, "--pipeline-parallel-size"),
        ({"parallel_config__decode_context_parallel_size": 2}, "--decode-context-parallel-size"),
        ({"parallel_config__prefill_context_parallel_size": 2}, "--prefill-context-parallel-size"),
        ({"model_config__runner_type": "pooling"}, "do not generate"),
        ({"model_config__is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_config__is_diffusion": True}, "diffusion"),
        ({"model_config__is_multimodal_model": True}, "multi-modal"),
        ({"model_config__return_sampling_mask": True}, "--return-sampling-mask"),
        ({"model_config__logprobs_mode": "processed_logprobs"}, "--logprobs-mode processed_logprobs"),
    ],
)
def test_what_cannot_be_rolled_back_is_refused_by_name(change: dict[str, Any], name: str) -> None:
    with pytest.raises(EngineRefusal, match=name):
        compat.refuse_unhealable(deployment(**change), full_attention())


def test_caches_that_forget_are_refused_by_name() -> None:
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MambaSpec, SlidingWindowSpec

    for spec in (MambaSpec, SlidingWindowSpec):
        with pytest.raises(EngineRefusal, match=spec.__name__):
            compat.refuse_unhealable(deployment(), caches(FullAttentionSpec, spec))


def test_ops_ride_on_an_output_and_come_off_again() -> None:
    from vllm.v1.engine import EngineCoreOutput

    output = EngineCoreOutput(request_id="r", new_token_ids=[])
    compat.put_ops(output, [{"op": "drafted"}])
    assert compat.take_ops(output) == [{"op": "drafted"}]
    assert compat.take_ops(output) == []
    assert output.kv_transfer_params is None


def test_signal_parameters_leave_the_callers_alone() -> None:
    from vllm import SamplingParams

    params = SamplingParams(extra_args={"healing": "on"})
    assert compat.signal_params(params).logprobs == 0
    assert (params.logprobs, params.extra_args) == (None, {"healing": "on"})
    assert compat.signal_params(SamplingParams(logprobs=3)).logprobs == 3
