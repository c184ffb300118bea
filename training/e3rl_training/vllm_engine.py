"""A vLLM engine under our scheduler in this process, for rollouts and for calibration."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from vllm import LLM

from e3rl_core.engines import vllm_compat as compat
from e3rl_core.engines import vllm_scheduler

#: What makes the engine ours; no setting of the user's changes it. Each request says how it is healed.
_OURS: Final[dict[str, Any]] = {
    "scheduler_cls": vllm_scheduler.HealingScheduler,
    "additional_config": {compat.KEY: {"mode": "off"}},
}
#: vLLM warns at every load that rotary embeddings, which have no weights, got none.
_QUIET: Final[dict[str, Any]] = {"log_level": "ERROR", "use_tqdm_on_load": False}


def start(model: str, settings: Mapping[str, Any]) -> LLM:
    """Start an engine; `settings` are those of `vllm.LLM`. CPUs run eagerly unless told otherwise: no compiler.

    Raises:
        TypeError, ValueError: vLLM does not take the settings, or cannot have the model.
        EngineRefusal: a deployment that cannot be healed.
    """
    vllm_scheduler.register()
    with _in_this_process():
        return LLM(model, **{**_QUIET, "enforce_eager": not torch.cuda.is_available(), **settings, **_OURS})


@contextmanager
def _in_this_process() -> Iterator[None]:
    """Have vLLM start its engine here, where weights can be handed over.

    It seeds every random stream of the process when it starts; the caller's go on where they were.
    """
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    states = random.getstate(), np.random.get_state()
    os.environ[name] = "0"
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
