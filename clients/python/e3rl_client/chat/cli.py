"""`e3rl chat`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    OpenAIError,
    PermissionDeniedError,
)
from rich.console import Console

from e3rl_client.chat.conversation import Conversation
from e3rl_client.chat.page import harmless
from e3rl_client.chat.screen import Show, into_pipe, on_terminal
from e3rl_client.client import E3RL

_PROMPT = "> "


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status: 0 done, 1 an error, 2 wrong usage, 130 interrupted."""
    args = _parser().parse_args(argv)
    try:
        client = E3RL(base_url=f"{args.url}/v1", api_key=os.environ.get("OPENAI_API_KEY") or "none", max_retries=0)
        model = _model(client, args.model)
        conversation = Conversation(client, model, args.healing, _options(args), _system(args))
        show = on_terminal(Console(highlight=False)) if _shows_drafts() else into_pipe(sys.stdout)
        if sys.stdin.isatty():
            return _talk(conversation, show, args.url)
        prompt = sys.stdin.read()
        if not prompt.strip():
            raise OpenAIError("standard input holds no prompt")
        conversation.turn(prompt, show)
    except OpenAIError as error:
        _say(f"error: {sentence(error, args.url)}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _talk(conversation: Conversation, show: Show, url: str) -> int:
    """Ask and answer until the end of the input. An error ends a turn, not the chat."""
    with suppress(ModuleNotFoundError):
        import readline  # noqa: F401  # lets `input` edit lines and remember them
    _say(f"{conversation.model} at {url}; Ctrl-C stops an answer, Ctrl-D ends the chat")
    while (prompt := _asked()) is not None:
        try:
            if prompt.strip():
                conversation.turn(prompt, show)
        except KeyboardInterrupt:
            _say("stopped")
        except OpenAIError as error:
            _say(f"error: {sentence(error, url)}")
    sys.stderr.write("\n")
    return 0


def _asked() -> str | None:
    """The next prompt; empty after Ctrl-C, None at the end of the input."""
    try:
        if sys.stdout.isatty():
            return input(_PROMPT)
        sys.stderr.write(_PROMPT)  # standard output is for answers
        sys.stderr.flush()
        return input()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return ""
    except EOFError:
        return None


def sentence(error: OpenAIError, url: str) -> str:
    """What went wrong, and what to do, in one line."""
    match error:
        case APITimeoutError():
            return f"the server at {url} did not answer in time"
        case APIConnectionError():
            return f"no server answers at {url}: start one with `e3rl serve`, or name another with --url"
        case AuthenticationError() | PermissionDeniedError():
            return f"the server at {url} wants a key: set OPENAI_API_KEY"
        case APIStatusError():
            body: Any = error.body if isinstance(error.body, dict) else {}
            said = body.get("message") or f"the server at {url} answers {error.status_code}"
            return harmless(" ".join(str(said).split()))
        case _:
            return harmless(" ".join(str(error).split()))


def _model(client: E3RL, wanted: str | None) -> str:
    """The model to talk to: the one that is asked for, or the server's first.

    Raises:
        OpenAIError: no server answers, or it does not serve that model.
    """
    try:
        served = [model.id for model in client.models.list()]
    except (AttributeError, TypeError, ValueError):  # the SDK hands on whatever came
        served = []
    if not served:
        raise OpenAIError(f"--url: {client.base_url} lists no model, as an OpenAI server would")
    if wanted not in (None, *served):
        raise OpenAIError(f"--model {wanted}: the server serves {', '.join(served)}")
    return wanted or served[0]


def _url(text: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return text.rstrip("/").removesuffix("/v1")
    raise argparse.ArgumentTypeError(f"{text!r} is no address; write e.g. http://127.0.0.1:8000")


def _options(args: argparse.Namespace) -> dict[str, Any]:
    given = {"temperature": args.temperature, "max_tokens": args.max_tokens, "seed": args.seed}
    return {name: value for name, value in given.items() if value is not None}


def _system(args: argparse.Namespace) -> list[Any]:
    return [{"role": "system", "content": args.system}] if args.system else []


def _shows_drafts() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def _say(what: str) -> None:
    sys.stderr.write(f"e3rl chat: {what}\n")


def _healing(text: str) -> Any:
    if text in ("off", "shadow", "on"):
        return text
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not off, shadow, on or a JSON object of settings")
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="e3rl chat",
        description="Chat with a served model: drafts are dim, what is erased is struck through and replaced, what is "
        "final is plain. Into a pipe goes final text alone; from a pipe all of it is one prompt.",
        epilog="A server that wants a key gets OPENAI_API_KEY. NO_COLOR turns colours off.",
    )
    parser.add_argument("--url", type=_url, default="http://127.0.0.1:8000", help="The server (default: %(default)s).")
    parser.add_argument("--model", help="Which one of its models (default: its first).")
    parser.add_argument(
        "--healing", type=_healing, default="on", help="off, shadow, on, or settings as JSON (default: %(default)s)."
    )
    parser.add_argument("--temperature", type=float, metavar="T", help="Sampling temperature (default: the server's).")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="Length of an answer (default: the server's).")
    parser.add_argument("--seed", type=int, metavar="N", help="For answers that can be repeated.")
    parser.add_argument("--system", metavar="TEXT", help="A system message to begin with.")
    return parser
