"""The method is pure: its modules import the standard library, numpy and pydantic, and each other. Nothing else."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import e3rl_core

ROOT = Path(e3rl_core.__file__).parent
ALLOWED = sys.stdlib_module_names | {"numpy", "pydantic"}
PURE = sorted(ROOT.glob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.name)
def test_pure_modules_import_only_what_they_may(path: Path) -> None:
    ours = {f"e3rl_core.{other.stem}" for other in PURE} | {"e3rl_core"}
    foreign = [name for name in imported(path) if name not in ours and name.split(".")[0] not in ALLOWED]
    assert foreign == []


def test_the_engines_do_not_import_each_other() -> None:
    torch_modules = list((ROOT / "engines").glob("torch_*.py"))
    assert torch_modules
    for path in torch_modules:
        assert [name for name in imported(path) if "vllm" in name] == []
    for path in (ROOT / "engines").glob("vllm_*.py"):
        assert [name for name in imported(path) if "torch_rollout" in name or "transformers" in name] == []


def test_importing_the_method_loads_no_engine() -> None:
    modules = ", ".join(f"e3rl_core.{path.stem}" for path in PURE if path.stem != "__init__")
    code = f"import sys, {modules}; print(sorted({{'torch', 'vllm', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
