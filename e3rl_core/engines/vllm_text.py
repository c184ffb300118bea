"""What the scheduler must know about text: segment boundaries, stop strings, the end of reasoning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from e3rl_core.engines import vllm_compat as compat
from e3rl_core.segmentation import boundary_table

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.request import Request

#: Tokens decoded around a possible stop string beyond its own length: a character may span several.
_STOP_MARGIN = 8


class RequestText:
    """Answers questions about the text of token ids, from the deployment's tokenizer."""

    def __init__(self, config: VllmConfig) -> None:
        self._tokenizer: Any = None
        self._boundaries = b""
        if not config.model_config.skip_tokenizer_init:
            from vllm.tokenizers import cached_tokenizer_from_config

            self._tokenizer = cached_tokenizer_from_config(config.model_config)
            size = config.model_config.get_vocab_size()
            texts = self._tokenizer.batch_decode([[token] for token in range(min(size, len(self._tokenizer)))])
            self._boundaries = boundary_table(texts).ljust(size, b"\0")
        self._reasoning_parser = config.structured_outputs_config.reasoning_parser

    def boundary(self, token: int) -> int:
        """The `Boundary` this token's text ends; 0 without a tokenizer."""
        return self._boundaries[token] if token < len(self._boundaries) else 0

    def completes_stop(self, request: Request, stop: Sequence[str]) -> bool:
        """Whether the newest token completes a stop string in the output text.

        The API process finds the stop string too, once the segment is committed, and ends the response there; ending
        the segment here keeps text behind the stop string from being drawn, scored and erased.
        """
        if self._tokenizer is None or request.num_output_tokens < request.sampling_params.min_tokens:
            return False
        window = max(len(s) for s in stop) + _STOP_MARGIN
        output = request._output_token_ids
        tail = output[-window:]
        text = self._tokenizer.decode(tail)
        before = self._tokenizer.decode(tail[:-1])
        return any(s in text and s not in before for s in stop)

    def reasoner(self, request: Request) -> Any:
        """A parser of this request's own: how its reasoning ends can depend on its chat template's settings.

        None where the deployment has no tokenizer or names no parser.
        """
        if not self._reasoning_parser or self._tokenizer is None:
            return None
        from vllm.reasoning import ReasoningParserManager

        parser = ReasoningParserManager.get_reasoning_parser(self._reasoning_parser)
        return parser(self._tokenizer, **compat.parser_settings(request.sampling_params))
