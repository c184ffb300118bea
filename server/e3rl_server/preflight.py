"""What can be checked before an engine starts: the model is there, the port is free, the memory suffices."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from e3rl_core.errors import E3RLError, ModelError
from e3rl_core.profile import PROFILE_NAME

GIB = 1 << 30

#: The KV cache's default share of the memory that is free after loading the weights, and its bounds (bytes).
_KV_SHARE, _KV_LEAST, _KV_MOST = 0.25, GIB // 4, 8 * GIB


class PortError(E3RLError):
    """The address to serve on cannot be had."""


class ApiKeyError(E3RLError):
    """The key that clients are to show is none that a client can show."""


class MemoryShortage(E3RLError):
    """The model and its KV cache do not fit into memory."""


def find_model(model: str) -> Path | None:
    """The model's folder or file on this machine; None if it is a name for the hub, or an object store's URL.

    Raises:
        ModelError: it is written like a path, and nothing is there.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    if "://" not in model and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise ModelError(f"model {model} was not found: there is no such folder")
    return None


def model_file(model: str, name: str, revision: str | None = None, cache: str | None = None) -> Path | None:
    """A small file of a model, from its folder or from the Hugging Face hub and its cache; None if it has no such file.

    Raises:
        ModelError: there is no such model.
    """
    if path := find_model(model):
        return path / name if (path / name).is_file() else None
    if "://" in model or os.environ.get("VLLM_USE_MODELSCOPE"):  # vLLM knows what to do
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision, cache_dir=cache))
    except (LocalEntryNotFoundError, HFValidationError):
        raise ModelError(
            f"model {model} was not found: there is no such folder, and no such model in the Hugging Face cache "
            "or within reach on its hub"
        ) from None
    except EntryNotFoundError:
        return None
    except HfHubHTTPError as error:
        why = str(error).strip().splitlines()[0]
        raise ModelError(f"model {model} cannot be had from the Hugging Face hub: {why}") from None


def model_config(model: str, revision: str | None = None, cache: str | None = None) -> dict[str, Any] | None:
    """The model's `config.json`; None where it has none.

    Raises:
        ModelError: there is no such model, or the file is not JSON.
    """
    path = model_file(model, "config.json", revision, cache)
    if path is None:
        folder = Path(model).expanduser()
        if folder.is_dir() and not (folder / "params.json").is_file():  # Mistral's own format
            raise ModelError(f"model {model} cannot be served: the folder has no config.json")
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ModelError(f"model {model} cannot be served: {path} is not JSON") from None
    if not isinstance(config, dict):
        raise ModelError(f"model {model} cannot be served: {path} is not a JSON object")
    return config


def profile_beside(model: str, revision: str | None = None, cache: str | None = None) -> Path | None:
    """The calibration profile that comes with a model, if one does and can be had."""
    try:
        return model_file(model, PROFILE_NAME, revision, cache)
    except ModelError:  # the model is cached, the hub is out of reach
        return None


def check_port(host: str | None, port: int) -> None:
    """Refuse an address that somebody else listens on, or that this machine does not have.

    Raises:
        PortError: saying which.
    """
    family = socket.AF_INET6 if host and ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as vLLM does: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host or "", port))
            probe.listen(1)
        except OSError as error:
            why = error.strerror or str(error)
            raise PortError(
                f"cannot listen on {host or '*'}:{port} ({why.lower()}): choose another with --port or --host"
            ) from None
        except OverflowError:
            raise PortError(f"--port {port} is not a port: use 0 to 65535") from None


def check_api_key(key: str | None) -> None:
    """Refuse a ``VLLM_API_KEY`` that does not do what it is set for.

    Raises:
        ApiKeyError: it is empty, which vLLM takes for none, and serves everybody; or it begins or ends in white space,
            which no header can carry, and nobody would be served.
    """
    if key == "":
        raise ApiKeyError("VLLM_API_KEY is empty, which would let everybody in: set a key, or unset it")
    if key and key != key.strip():
        raise ApiKeyError(
            "VLLM_API_KEY begins or ends in white space, which no client can send: often a line's end in its secret"
        )


def weights_size(model: str) -> int:
    """Bytes of a local model's weight files; 0 where they are not here yet."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return 0
    return max(sum(file.stat().st_size for file in folder.glob(f"*.{kind}")) for kind in ("safetensors", "bin"))


def default_kv_bytes(available: int, weights: int) -> int:
    """How large a KV cache on CPU is unless the user says: a share of what the weights leave, within bounds."""
    return int(min(max((available - weights) * _KV_SHARE, _KV_LEAST), _KV_MOST))


def check_memory(available: int, weights: int, kv: int) -> None:
    """Refuse a model and KV cache that do not fit; all in bytes.

    Raises:
        MemoryShortage: with the numbers.
    """
    if weights + kv > available:
        raise MemoryShortage(
            f"too little memory: the weights take {weights / GIB:.1f} GiB and the KV cache {kv / GIB:.1f} GiB, "
            f"{available / GIB:.1f} GiB are free: lower --kv-cache-memory-bytes or serve a smaller model"
        )
