"""GGUF to bf16 safetensors, in a process of its own: `python -m e3rl_core.embedded.dequantise FILE.gguf FOLDER`.

Its own process, so that the server starts without the converter's memory, threads and log settings. Each line it
prints names the step that begins.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: The steps, in order, as they are announced.
STEPS = ("loading libraries", "reading weights", "reading the tokenizer", "writing", "checking")


def dequantise(source: Path, target: Path) -> None:
    """Write `source` to the folder `target` as a Hugging Face model: weights, tokenizer, chat template."""
    steps = iter(STEPS)

    def announce() -> None:
        sys.stdout.write(next(steps) + "\n")
        sys.stdout.flush()

    announce()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    announce()
    folder = str(source.parent)
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    announce()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    announce()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    announce()
    if not tokenizer.chat_template:
        raise ValueError(f"{source.name} has no chat template")


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
