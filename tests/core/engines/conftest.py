"""Models for engine tests, made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.core.engines import vllm_engine


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded SmolLM2-135M-Instruct, converted."""
    from e3rl_core.embedded.model import embedded_model

    return embedded_model()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Path:
    """A random two-layer model with SmolLM2's tokenizer."""
    return vllm_engine.tiny_llama(tmp_path_factory.mktemp("tiny"), smollm2)


@pytest.fixture(scope="module")
def llm(tiny: Path) -> Iterator[Any]:
    """A healing engine over the tiny model: async scheduling with a step in flight, prefix caching on."""
    with vllm_engine.engine(tiny) as llm:
        yield llm
