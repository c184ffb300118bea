"""What a deployment does about healing: its flags, and how they, the model's profile and the user's JSON combine.

Order of what decides: a flag, then ``--additional-config '{"healing": ..}'``, then the model's calibration profile,
then the preset.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e3rl_core.errors import E3RLError, PolicyError
from e3rl_core.policy import PRESETS, Mode
from e3rl_core.profile import PROFILE_NAME, Defaults, Profile, fingerprint

#: Keys of vLLM's `additional_config` that are ours: the settings, and where the op log goes.
SETTINGS_KEY = "healing"
LOG_KEY = "healing_log"

MODES: tuple[Mode, ...] = ("off", "shadow", "on")

SCHEDULER = "e3rl_core.engines.vllm_scheduler.HealingScheduler"


class FlagError(E3RLError):
    """A flag of the command line is wrong, or contradicts another; the message names both."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that are ours to a parser."""
    group = parser.add_argument_group("healing")
    group.add_argument(
        "--healing",
        choices=MODES,
        help="on: erase and redraw uncertain segments; shadow: only count what would be erased; off: stock vLLM. "
        "Default: on where a calibration profile comes with the model, else shadow.",
    )
    group.add_argument("--healing-preset", choices=sorted(PRESETS), help="Segment lengths and erasure caps.")
    group.add_argument(
        "--profile", metavar="FILE", help=f"Calibration profile; default: {PROFILE_NAME} in the model's folder."
    )
    group.add_argument(
        "--healing-log", metavar="DIR", help="Write each response's segments and erasures here, as JSONL."
    )
    group.add_argument("--healing-log-text", action="store_true", help="Also write prompts and texts to that log.")
    group.add_argument("--no-playground", action="store_true", help="Do not serve the page at /playground.")


@dataclass(frozen=True)
class Healing:
    """A deployment's healing, decided."""

    mode: Mode
    reason: str
    """Why it is this mode, for the banner."""
    preset: str
    profile: Path | None
    settings: dict[str, Any]
    """For `e3rl_core.profile.Defaults.resolve`, here and in the engine."""
    log: dict[str, Any] | None

    @property
    def is_off(self) -> bool:
        return self.mode == "off"

    def additional_config(self, users: dict[str, Any]) -> dict[str, Any]:
        """`additional_config` for vLLM: the user's own with ours laid over it."""
        if self.is_off:
            return users
        ours: dict[str, Any] = {SETTINGS_KEY: self.settings}
        if self.log:
            ours[LOG_KEY] = self.log
        return {**users, **ours}


def decide(args: argparse.Namespace, model: dict[str, Any] | None, beside_model: Path | None) -> Healing:
    """Decide a deployment's healing.

    Args:
        args: with the flags of `add_flags`, `additional_config` and `scheduler_cls`.
        model: the model's `config.json`; None if it has none.
        beside_model: the calibration profile that comes with the model, if one does.

    Raises:
        FlagError, PolicyError, ProfileError: naming what is wrong.
    """
    _refuse_contradictions(args)
    if args.healing == "off":
        return Healing("off", "asked for with --healing off", "none", None, {}, None)
    given = (args.additional_config or {}).get(SETTINGS_KEY, {})
    if not isinstance(given, dict):
        raise PolicyError("--additional-config healing", "is not an object of settings")
    settings = dict(given)
    if args.healing_preset:
        settings["preset"] = args.healing_preset
    profile = args.profile or settings.get("profile") or beside_model
    if profile:
        settings["profile"] = str(Path(profile).expanduser().resolve())
    mode, reason = _mode(args, settings, profile)
    settings["mode"] = mode
    if profile and model is not None:
        Profile.load(settings["profile"]).check_fits(fingerprint(model), profile)
    policy = Defaults.resolve(settings).policy
    log = None
    if args.healing_log:
        log = {"dir": str(Path(args.healing_log).expanduser().resolve()), "text": args.healing_log_text}
    return Healing(policy.mode, reason, policy.preset, Path(profile) if profile else None, settings, log)


def _mode(args: argparse.Namespace, settings: dict[str, Any], profile: str | Path | None) -> tuple[Mode, str]:
    if args.healing:
        return args.healing, f"asked for with --healing {args.healing}"
    if settings.get("mode"):
        return settings["mode"], "set in --additional-config"
    if args.profile:
        return "on", "a calibration profile was given"
    if profile:
        return "on", "a calibration profile comes with the model"
    return "shadow", "no calibration profile comes with the model; --healing on turns it on"


def _refuse_contradictions(args: argparse.Namespace) -> None:
    if args.healing_log_text and not args.healing_log:
        raise FlagError("--healing-log-text needs --healing-log DIR")
    if args.healing == "off":
        ours = {"--healing-preset": args.healing_preset, "--profile": args.profile, "--healing-log": args.healing_log}
        for flag, value in ours.items():
            if value:
                raise FlagError(f"{flag} has no effect with --healing off: remove one of the two")
        return
    if args.scheduler_cls is not None:
        raise FlagError("--scheduler-cls cannot be combined with healing, which brings its own: add --healing off")
