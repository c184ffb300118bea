"""The checkpoint that a run leaves: plain Hugging Face files, a calibration profile, a model card."""

from __future__ import annotations

import datetime
import os
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from e3rl_core.calibration import Calibrator
from e3rl_core.policy import HealingPolicy
from e3rl_core.profile import PROFILE_NAME, Profile, fingerprint

#: Settings of a rollout that are a server's or a request's own affair.
_NOT_SUGGESTED = ("mode", "preset", "stream", "return_erased", "schedule", "scope", "budget")


def profile_of(
    calibrator: Calibrator, policy: HealingPolicy, config: dict[str, Any], provenance: dict[str, Any]
) -> Profile | None:
    """The profile a served checkpoint is healed by: what was learned in training, under the settings it was learned."""
    return calibrator.profile(fingerprint(config), suggested(policy), provenance)


def suggested(policy: HealingPolicy) -> dict[str, Any]:
    """The settings of a policy that a profile suggests to servers."""
    settings = policy.model_dump(mode="json", exclude=set(_NOT_SUGGESTED))
    settings["retry"] = {key: value for key, value in settings["retry"].items() if value is not None}
    return settings


def provenance(**facts: Any) -> dict[str, Any]:
    """When and with what a profile was learned."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": date, "versions": versions("e3rl", "torch", "transformers", "trl"), **facts}


def versions(*distributions: str) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for name in distributions:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def export(model: Any, tokenizer: Any, profile: Profile | None, card: str, folder: Path) -> None:
    """Write a checkpoint that `e3rl serve FOLDER` serves; aside first, then renamed, so that it is whole or not there.

    The model is a Hugging Face one, without adapters; the profile is None where nothing was scored.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        if profile is not None:
            profile.save(aside / PROFILE_NAME)
        (aside / "README.md").write_text(card, "utf-8")
        for path in aside.iterdir():  # safetensors are written for their owner alone; a server may be another user
            path.chmod(0o644)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def model_card(*, base: str, data: str, steps: int, last: dict[str, Any], command: str) -> str:
    """What a stranger wants to know of a checkpoint."""
    figures = "\n".join(f"| {name} | {value:.4g} |" for name, value in last.items())
    return f"""---
library_name: transformers
tags: [e3rl, reinforcement-learning, trl]
---

# {Path(base).name}, trained with E3RL

Started from `{Path(base).name}`, {steps} steps on `{Path(data).name}`. `{PROFILE_NAME}` beside the weights tells the
server what is normal for this model, so that

```
e3rl serve THIS_FOLDER
```

serves it with healing tuned to it. Any other server loads it as a plain checkpoint.

Made by `{command}`. Means over the last logged steps, on training rollouts (not an evaluation):

| | |
|---|---|
{figures}
"""
