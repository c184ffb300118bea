"""A recipe: one YAML file that says everything about a training run, checked before any of it is spent."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from e3rl_core.errors import RecipeError
from e3rl_training.data import DataSpec
from e3rl_training.rewards import RewardSpec

#: Recipes that come with the package, by file name.
SHIPPED = Path(__file__).parent / "recipes"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraSpec(_Section):
    """Train an adapter (PEFT) and merge it into the exported checkpoint."""

    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale, over the rank.")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout on the adapter's input.")
    target_modules: str | list[str] = Field("all-linear", description="Which layers; never `lm_head`.")


class ModelSpec(_Section):
    """The starting policy."""

    name: str = Field(
        description="A built-in (modchain-s1, modchain-s2, smollm2, smollm2-words), a folder, or a name on the Hub."
    )
    revision: str | None = Field(None, description="Commit or tag on the Hub.")
    architecture: str | None = Field(
        None, description="Its `model_type`, for a dry run where the model itself cannot be had."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Of the trained weights.")
    attention: str = Field("sdpa", description="transformers' attn_implementation; `eager` tells its attention.")
    lora: LoraSpec | None = None


class DifficultySpec(_Section):
    """Leave out problems that the starting policy always or never solves: their groups have no variance [ours]."""

    samples: int = Field(4, ge=2, le=256, description="Plain responses drawn per problem.")
    low: float = Field(0.05, ge=0.0, le=1.0, description="Least mean reward that stays.")
    high: float = Field(0.95, ge=0.0, le=1.0, description="Greatest mean reward that stays.")


class Recipe(_Section):
    """A training run."""

    model: ModelSpec
    data: DataSpec
    rewards: list[RewardSpec] = Field(min_length=1, description="The first one says what counts as right.")
    difficulty: DifficultySpec | None = None
    training: dict[str, Any] = Field(default_factory=dict, description="Any field of E3RLConfig, so of GRPOConfig.")
    output: Path = Field(description="Folder of checkpoints, logs, the report and the exported model.")

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe; `overrides` are ``key.path=value`` with the value in YAML.

        Raises:
            RecipeError: naming the file, line or key that is wrong.
        """
        data = _read(_find(path))
        for override in overrides:
            _override(data, override)
        try:
            recipe = cls.model_validate(data)
        except ValidationError as error:
            raise RecipeError(_first(error, cls)) from None
        _check_training(recipe.training)
        return recipe


def _find(path: str | Path) -> Path:
    """The file itself, or the shipped recipe of that name."""
    found = Path(path)
    if found.is_file():
        return found
    if (SHIPPED / found.name).is_file() and found.parent == Path():
        return SHIPPED / found.name
    shipped = ", ".join(sorted(recipe.name for recipe in SHIPPED.glob("*.yaml")))
    raise RecipeError(f"recipe {path}: there is no such file; recipes that come with e3rl: {shipped}")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise RecipeError(f"recipe {path}: is not YAML{where}: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path}: holds no settings; it needs model, data, rewards and output")
    return data


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: write it as key.path=value, e.g. training.learning_rate=1e-5")
    for part in parts[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise RecipeError(f"--set {override}: {part} is a value in the recipe, not a section")
    try:
        data[parts[-1]] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: the value is not YAML; put text with special signs in quotes") from None


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    errors = error.errors(include_url=False)
    # A key that is mistyped is also one that is missing: tell the first.
    found = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(map(str, found["loc"])) or "recipe"
    if found["type"] == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(found['loc'][-1]), _known(model, found['loc'][:-1]))}"
    if found["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {found['msg'].removeprefix('Value error, ')}"


def _known(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """The keys there are at a path of a recipe."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = [model.model_fields[part].annotation]
            while inner and not (isinstance(inner[0], type) and issubclass(inner[0], BaseModel)):
                inner = [*typing.get_args(inner[0]), *inner[1:]] if typing.get_args(inner[0]) else inner[1:]
            if inner:
                model = typing.cast(type[BaseModel], inner[0])
    return list(model.model_fields)


def _nearest(key: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, 1)
    return f", did you mean {near[0]!r}?" if near else ""


def _check_training(settings: Mapping[str, Any]) -> None:
    """Every key is one of E3RLConfig's, and every value of its type.

    Raises:
        RecipeError: naming the key.
    """
    from e3rl_training.config import E3RLConfig  # imports TRL: seconds, and a torch

    known = [one.name for one in dataclasses.fields(E3RLConfig) if one.init]
    hints = typing.get_type_hints(E3RLConfig)
    for key, value in settings.items():
        if key not in known:
            raise RecipeError(f"training.{key}: unknown key{_nearest(key, known)}")
        if key == "output_dir":
            raise RecipeError("training.output_dir: say `output` at the top of the recipe instead")
        try:
            _value(hints[key], value)
        except ValidationError as error:
            message = error.errors(include_url=False)[0]["msg"]
            raise RecipeError(f"training.{key}: {message[0].lower()}{message[1:]}, got {value!r}") from None


def _adapter(hint: Any) -> TypeAdapter[Any]:
    """Types that pydantic does not know (callables, enums of other libraries) take anything."""
    try:
        return TypeAdapter(hint, config=None if isinstance(hint, types.GenericAlias) else ConfigDict(strict=False))
    except Exception:
        return TypeAdapter(Any)


def typed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as Python values: YAML reads 1e-5 as text."""
    from e3rl_training.config import E3RLConfig

    hints = typing.get_type_hints(E3RLConfig)
    return {key: _value(hints[key], value) for key, value in settings.items()}


def _value(hint: Any, value: Any) -> Any:
    """A setting as its type has it; a bare `no` is a truth value in YAML, and a word in `save_strategy: no`."""
    adapter = _adapter(hint)
    try:
        return adapter.validate_python(value)
    except ValidationError:
        if isinstance(value, bool):
            with suppress(ValidationError):
                return adapter.validate_python("yes" if value else "no")
        raise
