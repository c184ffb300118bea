"""Recipes: what is read, what is overridden, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from e3rl_core.errors import RecipeError
from e3rl_training.recipe import SHIPPED, Recipe, typed

GOOD = """
model: {name: modchain-s1, dtype: float32}
data: {name: modchain}
rewards: [{name: exact}]
training: {learning_rate: 1e-4, num_generations: 4}
output: runs/test
"""


def load(text: str, tmp_path: Path, *overrides: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    return Recipe.load(path, overrides)


def test_a_recipe(tmp_path: Path) -> None:
    recipe = load(GOOD, tmp_path)
    assert recipe.model.name == "modchain-s1"
    assert recipe.output == Path("runs/test")
    assert typed(recipe.training)["learning_rate"] == 1e-4  # YAML reads 1e-4 as text


def test_no_is_a_word_where_a_word_is_wanted(tmp_path: Path) -> None:
    assert typed(load(GOOD, tmp_path, "training.save_strategy=no").training)["save_strategy"] == "no"


def test_overrides(tmp_path: Path) -> None:
    recipe = load(
        GOOD,
        tmp_path,
        "training.learning_rate=2e-5",
        "training.healing.threshold.k=2",
        "model.name=a/b",
        "data.limit=7",
    )
    assert typed(recipe.training)["learning_rate"] == 2e-5
    assert recipe.training["healing"] == {"threshold": {"k": 2}}
    assert (recipe.model.name, recipe.data.limit) == ("a/b", 7)


@pytest.mark.parametrize("name", [path.name for path in SHIPPED.glob("*.yaml")])
def test_shipped_recipes_are_found_by_name(name: str) -> None:
    assert Recipe.load(name).rewards


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("model:", "modle:", "modle: unknown key, did you mean 'model'"),
        ("dtype: float32", "dtyp: float32", "model.dtyp: unknown key, did you mean 'dtype'"),
        ("dtype: float32", "dtype: float8", "model.dtype: .*'float32'"),
        ("learning_rate", "learning_rat", "training.learning_rat: unknown key, did you mean 'learning_rate'"),
        ("num_generations: 4", "num_generations: four", "training.num_generations: .*'four'"),
        ("num_generations: 4", "output_dir: here", "training.output_dir: say `output`"),
        ("rewards: [{name: exact}]", "rewards: []", "rewards: "),
        ("rewards: [{name: exact}]", "rewards: [{name: exact, wait: 2}]", "rewards.0.wait: unknown key"),
        ("output: runs/test", "", "output: is missing"),
        ("{name: modchain}", "{name: modchain", "is not YAML at line 4"),
    ],
)
def test_what_is_wrong_is_named(before: str, after: str, says: str, tmp_path: Path) -> None:
    assert before in GOOD
    with pytest.raises(RecipeError, match=says):
        load(GOOD.replace(before, after), tmp_path)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training", "write it as key.path=value"),
        ("=3", "write it as key.path=value"),
        ("output.folder=x", "output is a value in the recipe, not a section"),
        ("output=[", "is not YAML"),
    ],
)
def test_wrong_overrides(override: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        load(GOOD, tmp_path, override)


@pytest.mark.parametrize("text", ["", "- 1", "hello"])
def test_a_file_that_is_no_recipe(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no settings"):
        load(text, tmp_path)


def test_a_recipe_nobody_has() -> None:
    with pytest.raises(RecipeError, match=r"nowhere.yaml: there is no such file; .*modchain-cpu.yaml"):
        Recipe.load("nowhere.yaml")
