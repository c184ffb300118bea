"""One HTTP exchange with healing: its choices, what the engine reported of them, and when that may be sent.

    engine ──output──> vLLM's output processor ──queue──> HealingClient.generate ──> vLLM's serving layer ──chunks──>
             └──ops──> Exchanges.tap ──> ChoiceTrack ──────────┴── "handed over" ──> streaming

Ops are tapped in the same event loop turn in which their output is queued, and an output is taken off that queue
and handed over without a turn in between. So at a hand-over everything tapped before belongs to outputs up to this
one, also where vLLM has merged several because the consumer lags.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import secrets
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from e3rl_core.engines.vllm_compat import KEY, TappedRequest, with_parser_settings
from e3rl_core.events import Op, Summary, load_ops
from e3rl_core.policy import HealingPolicy
from e3rl_server.frontier import ChoiceTrack, PendingEvent, ReasoningOver, Records
from e3rl_server.metrics import Metrics
from e3rl_server.oplog import ResponseLog

logger = logging.getLogger("vllm.e3rl_server")


class Exchange:
    """What one response with mode ``on`` or ``shadow`` has gone through so far.

    Args:
        policy: the response's settings.
        n: choices per prompt.
        streamed: whether the client streams.
        id_suffix: what vLLM puts between the response's id and the number of an engine request, if it does.
        log: where its op log is written; None: nowhere.
    """

    def __init__(
        self, policy: HealingPolicy, *, n: int, streamed: bool, id_suffix: str = "", log: ResponseLog | None = None
    ) -> None:
        self.policy = policy
        self.n = n
        self.streamed = streamed
        self.live = streamed and policy.stream == "live"
        self.tracks: dict[int, ChoiceTrack] = {}
        self.log = log
        self.closed = False
        self.response_id = ""
        self._id_suffix = id_suffix
        self._keeps_records = not streamed or policy.return_erased
        self._records: list[Records] = []
        # A count, not a list: an exchange that held its bindings would wait for the garbage collector with them.
        self._prompts = 0
        self._seq = 0
        self._news: asyncio.Future[None] | None = None

    # --- the engine's side ------------------------------------------------------------------------------------------

    def bind(self, request_id: str, reasoning_over: ReasoningOver | None = None) -> Binding:
        """Open the choices of one more prompt (or, in the Responses API, of one more turn).

        Args:
            request_id: the id that vLLM's serving layer gives the engine request.
            reasoning_over: see `ChoiceTrack`.
        """
        if not self._prompts:
            self.response_id = request_id.rpartition(self._id_suffix)[0] if self._id_suffix else request_id
            if self.log is not None:
                self.log.begin(self.response_id)
        binding = Binding(self, self._prompts)
        self._prompts += 1
        for index in range(self.n):
            choice = binding.first + index
            records = Records() if self._keeps_records else None
            if records is not None:
                self._records.append(records)
            withholds = self.policy.mode == "on"
            self.tracks[choice] = ChoiceTrack(choice, self.live, withholds, records, reasoning_over)
        return binding

    @property
    def one_prompt(self) -> bool:
        return self._prompts == 1

    def announce(self) -> None:
        """Wake who waits for `news`."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def close(self) -> None:
        """The response is over, one way or another: nothing is fed any more."""
        if self.closed:
            return
        self.closed = True
        if self.log is not None:
            self.log.close(self.summary().model_dump(mode="json", exclude_none=True))

    # --- the client's side ------------------------------------------------------------------------------------------

    def news(self) -> asyncio.Future[None]:
        """A future that is done when something has come in after this call."""
        if self._news is None or self._news.done():
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    def number(self, event: PendingEvent) -> dict[str, Any]:
        """The event's JSON object with the next `seq`."""
        seq, self._seq = self._seq, self._seq + 1
        return event.numbered(seq)

    def take_loose(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Numbered events that can be sent at once, with their choice."""
        for choice, track in list(self.tracks.items()):  # a next turn may open one meanwhile
            for event in track.take_loose():
                yield choice, self.number(event)

    def take_all(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Numbered events that are left, at the end of a stream."""
        for choice, track in self.tracks.items():
            for event in track.take_due(forced=True):
                yield choice, self.number(event)

    @property
    def erased_tokens(self) -> int:
        return sum(track.tally.erased_tokens for track in self.tracks.values())

    def summary(self) -> Summary:
        """What healing did to the response so far, over all its choices."""
        tallies = [track.tally for track in self.tracks.values()]
        segments = sum(tally.segments for tally in tallies)
        shadow = self.policy.mode == "shadow"
        return Summary(
            mode=self.policy.mode,
            segments=segments,
            erasures=sum(tally.erasures for tally in tallies),
            would_erase=sum(tally.would_erase for tally in tallies) if shadow else None,
            erased_tokens=self.erased_tokens,
            committed_tokens=sum(track.committed_tokens for track in self.tracks.values()),
            mean_uncertainty=sum(tally.uncertainty for tally in tallies) / segments if segments else None,
        )

    def report(self) -> dict[str, Any]:
        """The `healing` object of an answer: the summary, with `seq` in a stream, with records where they are kept."""
        extra: dict[str, Any] = {}
        if self.streamed:
            extra["seq"], self._seq = self._seq, self._seq + 1
        if self._keeps_records:
            extra["records"] = [segment for records in self._records for segment in records.segments]
        report = self.summary().model_copy(update=extra).model_dump(mode="json", exclude_none=True)
        report.setdefault("mean_uncertainty", None)
        return report


@dataclass(eq=False)
class Binding:
    """One engine request of an exchange: a prompt with its n choices."""

    exchange: Exchange
    index: int

    @property
    def first(self) -> int:
        """Index in the response of its first choice."""
        return self.index * self.exchange.n

    def feed(self, request: TappedRequest, ops: list[Op]) -> None:
        """Take the ops that came with one engine output."""
        exchange = self.exchange
        if exchange.closed:
            return
        choice = self.first + request.choice
        track = exchange.tracks[choice]
        start = track.frontier
        track.feed(request, ops)
        if exchange.log is not None:
            exchange.log.write(choice, ops, request.text[start : track.frontier], request.draft_decoder)
        exchange.announce()

    def handed_over(self, output: Any) -> None:
        """The serving layer gets this `RequestOutput`."""
        exchange = self.exchange
        for completion in output.outputs:
            track = exchange.tracks[self.first + completion.index]
            # The serving layer skips outputs that bring nothing before the first token.
            visible = bool(completion.text or completion.token_ids or track.committed_tokens)
            track.handed_over(len(completion.token_ids), visible=visible, in_order=exchange.one_prompt)
        if exchange.log is not None and self.index == 0:
            exchange.log.prompt(output.prompt_token_ids)

    def asked_again(self) -> None:
        """The serving layer wants its next output: what no chunk came of will not come any more."""
        if not self.exchange.live or not self.exchange.one_prompt:
            return
        for track in self.exchange.tracks.values():
            track.release_due()
        self.exchange.announce()


#: The exchange of the request that the current context serves. `STOCK`: heal nothing, whatever the default is.
STOCK = object()
current_exchange: ContextVar[Exchange | object | None] = ContextVar("e3rl_exchange", default=None)

ReasoningWatch = Callable[[dict[str, Any]], ReasoningOver | None]


class Exchanges:
    """Which exchange an engine request belongs to; exchanges vanish from here when their response does."""

    def __init__(self, metrics: Metrics, reasoning: ReasoningWatch = lambda _: None) -> None:
        self.metrics = metrics
        self._reasoning = reasoning
        self._bindings: weakref.WeakValueDictionary[str, Binding] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        """Engine requests of exchanges that are still going on."""
        return sum(not binding.exchange.closed for binding in self._bindings.values())

    def bind(self, exchange: Exchange, request_id: str, generate_arguments: dict[str, Any]) -> tuple[str, Binding]:
        """Have ops of one more engine request fed to `exchange`; returns the id the engine shall know it by.

        Clients can choose request ids, and two can choose the same: what one of them gets must not be the other's.
        """
        over = self._reasoning(generate_arguments) if exchange.live else None
        binding = exchange.bind(request_id, over)
        engine_id = f"{request_id}-{secrets.token_hex(4)}"
        self._bindings[engine_id] = binding
        return engine_id, binding

    def tap(self, request: TappedRequest, ops: list[dict[str, Any]]) -> None:
        """The output tap. It runs inside vLLM's output loop, which an exception would end for everybody."""
        try:
            loaded = load_ops(ops)
            binding = self._bindings.get(request.request_id)
            self.metrics.observe(loaded, request.arrival_time, binding.exchange.policy.mode if binding else None)
            if binding is not None:
                binding.feed(request, loaded)
        except Exception:
            logger.exception("The healing report of a request was lost")


class HealingClient:
    """An engine client that ties each generation to the exchange it serves; everything else is the engine's own."""

    def __init__(self, engine_client: Any, exchanges: Exchanges) -> None:
        self._engine_client = engine_client
        self._exchanges = exchanges

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine_client, name)

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """As `EngineClient.generate`."""
        exchange = current_exchange.get()
        if exchange is STOCK:
            sampling_params = copy.copy(sampling_params)
            sampling_params.extra_args = {**(sampling_params.extra_args or {}), KEY: "off"}
        if not isinstance(exchange, Exchange) or exchange.closed:
            stock: AsyncGenerator[Any, None] = self._engine_client.generate(
                prompt, sampling_params, request_id, **kwargs
            )
            return stock
        if exchange.policy.scope == "reasoning" and kwargs.get("reasoning_parser_kwargs"):
            sampling_params = with_parser_settings(sampling_params, kwargs["reasoning_parser_kwargs"])
        engine_id, binding = self._exchanges.bind(exchange, request_id, kwargs)
        return _watched(binding, self._engine_client.generate(prompt, sampling_params, engine_id, **kwargs))


async def _watched(binding: Binding, outputs: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    async with aclosing(outputs):
        async for output in outputs:
            binding.handed_over(output)
            yield output
            binding.asked_again()
