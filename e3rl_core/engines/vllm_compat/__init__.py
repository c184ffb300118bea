"""Every undocumented vLLM name this project touches, the versions they were read in, and what cannot be healed.

Documented extension points (scheduler class, plugins, `extra_args`) are used where they are needed; what is not
documented is used through this package alone, a module per process. `contract.TOUCHED` lists it name by name; a test
checks each against the installed vLLM and fails with the name that moved.

    process      hook                      what for
    scheduler    RequestSurgery            truncate a request to a checkpoint, keep its blocks, queue it to resume
    scheduler    cap_prefix_cache          uncommitted tokens never enter the prefix cache
    scheduler    gate_grammar              the grammar advances with held tokens and is rolled back with them
    worker       install_worker_hooks      a resumed request gets its redraw's sampling parameters (model runner V1);
                                           the surprisal alone, without full-vocabulary ranks
    API          install_frontend_hooks    bad healing settings are a 400; ops are taken off outputs, in order
    API          with_parser_settings      the scheduler knows how this request's reasoning ends
    trainer      in_process_scheduler      a new profile every step
    trainer      reload_weights            new weights every step
    trainer      shut_down                 an engine's end leaves the trainer's process group alone
"""

from e3rl_core.engines.vllm_compat.contract import (
    KEY,
    TOUCHED,
    TOUCHED_ATTRIBUTES,
    check_version,
    refuse_unhealable,
    settings_of,
)
from e3rl_core.engines.vllm_compat.frontend import (
    TappedRequest,
    add_output_tap,
    install_frontend_hooks,
    remove_output_tap,
)
from e3rl_core.engines.vllm_compat.ops import (
    put_ops,
    take_ops,
)
from e3rl_core.engines.vllm_compat.reasoning import parser_settings, with_parser_settings
from e3rl_core.engines.vllm_compat.scheduler import (
    GrammarMark,
    RequestSurgery,
    cap_prefix_cache,
    gate_grammar,
    grammar_rolls_back,
)
from e3rl_core.engines.vllm_compat.trainer import (
    in_process_scheduler,
    reload_weights,
    shut_down,
)
from e3rl_core.engines.vllm_compat.worker import (
    attach_redraws,
    install_worker_hooks,
    signal_params,
    worker_hooks_installed,
)

__all__ = [
    "KEY",
    "TOUCHED",
    "TOUCHED_ATTRIBUTES",
    "GrammarMark",
    "RequestSurgery",
    "TappedRequest",
    "add_output_tap",
    "attach_redraws",
    "cap_prefix_cache",
    "check_version",
    "gate_grammar",
    "grammar_rolls_back",
    "in_process_scheduler",
    "install_frontend_hooks",
    "install_worker_hooks",
    "parser_settings",
    "put_ops",
    "refuse_unhealable",
    "reload_weights",
    "remove_output_tap",
    "settings_of",
    "shut_down",
    "signal_params",
    "take_ops",
    "with_parser_settings",
    "worker_hooks_installed",
]
