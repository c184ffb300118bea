"""The examples in the client's docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import e3rl_client

MODULES = [module.name for module in pkgutil.iter_modules(e3rl_client.__path__) if not module.ispkg]


def run(name: str) -> doctest.TestResults:
    return doctest.testmod(importlib.import_module(f"e3rl_client.{name}"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert run(name).failed == 0


def test_there_are_examples() -> None:
    assert sum(run(name).attempted for name in MODULES) > 10
