"""`e3rl serve`: vLLM's own API server in this process, with healing's flags, sane defaults and readable refusals.

The order is: environment (vLLM reads it when imported), flags, healing's settings, port, model, memory, engine. What
can be refused before the engine starts is; every refusal is one line on stderr and a non-zero exit.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from e3rl_core.embedded.model import MODEL_NAME, embedded_model
from e3rl_core.errors import E3RLError
from e3rl_core.profile import Profile
from e3rl_server import banner, preflight
from e3rl_server.deployment import SCHEDULER, Healing, add_flags, decide
from e3rl_server.memory import available_memory
from e3rl_server.plugins import plugin_names
from e3rl_server.startup import Failures, recorded_failures, sentence_of

#: Where it listens unless told: this machine only.
HOST, PORT = "127.0.0.1", 8000

#: Seconds that streams in flight get to finish after SIGTERM; Kubernetes' own default, too.
DRAIN_SECONDS = 30

#: Requests in flight, waiting included, per sequence the engine can run at once; over it a request gets 503.
QUEUE_DEPTH = 4
#: What vLLM runs at once unless told, on CPUs and on the largest GPUs.
_CPU_SEQUENCES, _GPU_SEQUENCES = 128, 1024


def serve(argv: Sequence[str]) -> int:
    """Serve until a signal ends it.

    Args:
        argv: the command line after ``e3rl serve``.

    Returns:
        The exit status: 0 after a drained stop, 1 for a failure, 143 or 130 for a signal during start-up.
    """
    signal.signal(signal.SIGTERM, _stop)
    try:
        with recorded_failures() as failures:
            return _serve(argv, failures)
    except E3RLError as error:
        return _fail(str(error))
    except KeyboardInterrupt as stop:
        return 143 if stop.args else 130


def _serve(argv: Sequence[str], failures: Failures) -> int:
    peeked = _peek(argv)
    _refuse_early(peeked)
    _prepare_environment(healing=peeked.healing != "off")
    try:
        args = _parse(argv)
        healing = _settle(args)
        sys.stderr.write(f"e3rl: starting {_served_name(args)}, healing {healing.mode} ({healing.reason})\n")
        _run(args)
    except E3RLError:
        raise
    except (ValueError, TypeError, KeyError, OSError, RuntimeError) as error:
        return _explain(error, failures)
    return 0


def _stop(*_: Any) -> NoReturn:
    """A SIGTERM before vLLM takes over: unwinds, so that half-made files go."""
    raise KeyboardInterrupt("terminated")


def _peek(argv: Sequence[str]) -> argparse.Namespace:
    """The few flags that matter before vLLM, whose import takes seconds, can parse them all."""
    probe = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    probe.add_argument("--healing")
    probe.add_argument("--profile")
    probe.add_argument("--host", default=HOST)
    probe.add_argument("--port", default=PORT, type=int)
    probe.add_argument("--config")
    probe.add_argument("--uds")
    probe.add_argument("-h", "--help", nargs="?", const="")
    try:
        peeked, rest = probe.parse_known_args(list(argv))
    except argparse.ArgumentError:  # the real parser says it better
        peeked, rest = probe.parse_known_args([])
    peeked.model = rest[0] if argv and rest[:1] == list(argv[:1]) and not rest[0].startswith("-") else None
    return peeked


def _refuse_early(peeked: argparse.Namespace) -> None:
    """Catch the common mistakes at once; `_settle` checks again with every flag known."""
    if peeked.help is not None:
        return
    if peeked.model:
        preflight.find_model(peeked.model)
    if peeked.profile and peeked.healing != "off":
        Profile.load(peeked.profile)
    if not peeked.config and not peeked.uds:
        preflight.check_port(peeked.host, peeked.port)


def _prepare_environment(healing: bool) -> None:
    """Set what vLLM reads from the environment, for this process and those it starts."""
    os.environ["VLLM_PLUGINS"] = plugin_names(healing, os.environ.get("VLLM_PLUGINS"))
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    # After a failed start Python's resource tracker would have the last word, about shared memory it then frees.
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), quiet)))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse vLLM's flags and ours; exits with status 2 for an unknown or ill-typed one, like any command."""
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    usage = "e3rl serve [MODEL] [options]"
    top = FlexibleArgumentParser(prog="e3rl serve", usage=usage)
    parser = ServeSubcommand().subparser_init(top.add_subparsers(dest="subparser", prog="e3rl"))
    parser.usage = usage
    parser.description = "Serve a model over the OpenAI API, healing on request. Takes every flag of `vllm serve`."
    parser.epilog = "See --help=healing for this command's own flags, --help=all for every flag."
    add_flags(parser)
    parser.set_defaults(model=None, host=HOST, port=PORT, shutdown_timeout=DRAIN_SECONDS, enforce_eager=None)
    args: argparse.Namespace = top.parse_args(["serve", *argv])
    configure_logging_from_args(args)
    validate_parsed_serve_args(args)
    return args


def _settle(args: argparse.Namespace) -> Healing:
    """Fill in all that `args` leaves open, having checked what can be checked."""
    if not args.headless and not args.uds:
        preflight.check_port(args.host, args.port)
    key = os.environ.get("VLLM_API_KEY")
    if not args.api_key:
        preflight.check_api_key(key)
    args.model_tag = args.model_tag or args.model or _take_embedded(args)
    place = (args.model_tag, args.revision, args.download_dir)
    healing = decide(args, preflight.model_config(*place), preflight.profile_beside(*place))
    args.additional_config = healing.additional_config(args.additional_config or {})
    if not healing.is_off:
        args.scheduler_cls = SCHEDULER
    args.middleware = ["e3rl_server.limits.Limits", *args.middleware]
    on_cpu = _settle_cpu(args)
    if args.max_num_queued_reqs is None:
        sequences = args.max_num_seqs or (_CPU_SEQUENCES if on_cpu else _GPU_SEQUENCES)
        args.max_num_queued_reqs = QUEUE_DEPTH * sequences * args.data_parallel_size
    url = banner.url_of(args.host, args.port, args.uds, tls=bool(args.ssl_certfile))
    has_page = not (args.no_playground or args.uds)  # a browser does not open a socket file
    said = banner.banner(_served_name(args), healing, url, api_key=bool(args.api_key or key), playground=has_page)
    setattr(args, banner.ATTRIBUTE, said)
    return healing


def _take_embedded(args: argparse.Namespace) -> str:
    """The embedded model, with tool calls: `make serve` is to answer whatever the OpenAI SDK asks."""
    if args.tool_call_parser is None:
        args.enable_auto_tool_choice, args.tool_call_parser = True, "hermes"
    args.served_model_name = args.served_model_name or [MODEL_NAME]
    return str(embedded_model())


def _settle_cpu(args: argparse.Namespace) -> bool:
    """On CPU: eager mode unless said otherwise (10 s to start instead of 90 s, no compiler), a KV cache that fits."""
    from vllm.platforms import current_platform

    on_cpu = bool(current_platform.is_cpu())
    if args.enforce_eager is None:
        args.enforce_eager = on_cpu
    if not on_cpu:
        return False
    available, weights = available_memory(), preflight.weights_size(args.model_tag)
    if from_environment := os.environ.get("VLLM_CPU_KVCACHE_SPACE"):  # vLLM prefers it to the flag
        args.kv_cache_memory_bytes = int(from_environment) * preflight.GIB
    elif args.kv_cache_memory_bytes is None:
        args.kv_cache_memory_bytes = preflight.default_kv_bytes(available, weights)
    preflight.check_memory(available, weights, args.kv_cache_memory_bytes)
    return True


def _run(args: argparse.Namespace) -> None:
    from vllm.entrypoints.cli.serve import ServeSubcommand

    ServeSubcommand.cmd(args)


def _served_name(args: argparse.Namespace) -> str:
    return str(args.served_model_name[0] if args.served_model_name else args.model_tag)


def _explain(error: Exception, failures: Failures) -> int:
    """One line for what a user can mend; with its trace before it for what looks like a defect."""
    if cause := failures.cause():
        return _fail(cause)
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return _fail(f"cannot listen ({error.strerror}): choose another port with --port")
    if not isinstance(error, (ValueError, OSError)):
        traceback.print_exc()
    return _fail(sentence_of(error))


def _fail(message: str) -> int:
    sys.stderr.write(f"e3rl serve: error: {message}\n")
    return 1
