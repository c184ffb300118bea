"""The typed request field keeps up with the server's settings."""

from __future__ import annotations

from typing import Any, get_type_hints

from pydantic import BaseModel

from e3rl_client.settings import HealingSettings
from e3rl_core.policy import HealingPolicy


def of_policy(model: type[BaseModel]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        found[name] = of_policy(kind) if isinstance(kind, type) and issubclass(kind, BaseModel) else plain(kind)
    return found


def of_settings(settings: type) -> dict[str, Any]:
    hints = get_type_hints(settings)
    return {name: of_settings(kind) if get_hints(kind) else plain(kind) for name, kind in hints.items()}


def get_hints(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__total__")


def plain(kind: Any) -> Any:
    """A type up to what JSON can tell: a sequence is a list."""
    return str(kind).replace("tuple[int, ...]", "list[int]").replace("collections.abc.Sequence[int]", "list[int]")


def test_every_setting_is_typed_as_the_server_reads_it() -> None:
    ours = of_settings(HealingSettings)
    assert ours["segment"].pop("tokens") == plain(int)  # the shorthand
    assert ours == of_policy(HealingPolicy)
