"""Which vLLM plugins load: ours, and whatever else is installed.

vLLM loads endpoint plugins only if VLLM_PLUGINS names them, and once it is set, only the plugins it names, of every
group. So all are named.
"""

from __future__ import annotations

from importlib.metadata import entry_points

#: Groups that load whole while VLLM_PLUGINS is unset.
_GROUPS = (
    "vllm.general_plugins",
    "vllm.io_processor_plugins",
    "vllm.platform_plugins",
    "vllm.stat_logger_plugins",
)

#: Ours in every mode: routes (which refuse to heal by name where healing is off), probes, the page, failure reports.
SERVICE = ("e3rl_api", "e3rl_health", "e3rl_playground", "e3rl_startup")
#: The hooks in vLLM's processes: not there at all where healing is off.
HEALING = "e3rl"


def plugin_names(healing: bool, users: str | None) -> str:
    """The value of VLLM_PLUGINS.

    Args:
        healing: whether the healing plugin is among them.
        users: the value the user has set, if any: then only those load besides ours.
    """
    if users is None:
        names = {point.name for group in _GROUPS for point in entry_points(group=group)}
    else:
        names = set(filter(None, users.split(",")))
    names |= {HEALING, *SERVICE}
    if not healing:
        names.discard(HEALING)
    return ",".join(sorted(names))
