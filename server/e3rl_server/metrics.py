"""Prometheus metrics of healing, on the same /metrics as vLLM's own.

They are made from op logs, so they count every healed request, whichever endpoint it came through. The label values
are those of enumerations: their number is bounded. With several API processes vLLM switches prometheus_client to its
multi-process mode before any of them starts; counters and histograms then add up over processes by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from e3rl_core.events import BudgetOp, CommittedOp, ErasedOp, Op
from e3rl_core.healer import Limit, Reason

_NATS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_DROP_NATS = (-2.0, -1.0, -0.5, -0.2, 0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ATTEMPTS = (1, 2, 3, 4, 6, 11, 21, 65)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)


class Metrics:
    """All counters and histograms; register once per process and registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.requests = counter("e3rl_requests_total", "Requests by healing mode.", "mode")
        self.segments = counter(
            "e3rl_segments_total", "Segment draws by outcome; forced: kept because a limit was reached.", "outcome"
        )
        self.erasures = counter("e3rl_erasures_total", "Erased segment draws by reason.", "reason")
        self.committed_tokens = counter("e3rl_committed_tokens_total", "Tokens of segments that were kept.")
        self.erased_tokens = counter("e3rl_erased_tokens_total", "Tokens of finished segments' draws that were erased.")
        self.recomputed_tokens = counter(
            "e3rl_rollback_recomputed_tokens_total", "Tokens scheduled again or in vain because of erasures."
        )
        self.budget_exhausted = counter(
            "e3rl_budget_exhausted_total", "Responses whose budget denied an erasure, by budget.", "budget"
        )
        self.uncertainty = histogram("e3rl_segment_uncertainty_nats", "Uncertainty U of kept segments, nats.", _NATS)
        self.drop = histogram(
            "e3rl_uncertainty_drop_nats",
            "U of a redrawn segment's first draw minus U of the kept one, nats.",
            _DROP_NATS,
        )
        self.attempts = histogram("e3rl_attempts_per_segment", "Draws per kept segment.", _ATTEMPTS)
        self.first_commit = histogram(
            "e3rl_time_to_first_committed_token_seconds",
            "From a request's arrival to its first committed segment, mode on, seconds.",
            _SECONDS,
        )
        self.shadow_erasures = counter("e3rl_shadow_erasures_total", "Segments that shadow mode would have erased.")
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        """Show every labelled series from the start, so that rates are right from the first event on."""
        for mode in ("off", "shadow", "on"):
            self.requests.labels(mode)
        for outcome in ("committed", "erased", "forced"):
            self.segments.labels(outcome)
        for reason in Reason:
            self.erasures.labels(reason.value)
        for limit in Limit:
            if limit is not Limit.MAX_ERASURES:
                self.budget_exhausted.labels(limit.value)

    def observe(self, ops: Iterable[Op], arrival_time: float | None = None, mode: str | None = None) -> None:
        """Count what one engine output reports.

        Args:
            ops: the output's op log.
            arrival_time: when its request arrived, seconds since the epoch, where that is known.
            mode: the request's mode, where that is known.
        """
        for op in ops:
            if isinstance(op, ErasedOp):
                self.segments.labels("erased").inc()
                self.erasures.labels(op.reason.value).inc()
                self.recomputed_tokens.inc(op.recomputed)
            elif isinstance(op, CommittedOp):
                self._observe_commit(op)
                if mode == "on" and op.segment == 0 and arrival_time is not None:
                    self.first_commit.observe(max(0.0, time.time() - arrival_time))
            elif isinstance(op, BudgetOp):
                self.budget_exhausted.labels(op.budget.value).inc()

    def _observe_commit(self, op: CommittedOp) -> None:
        self.segments.labels("committed" if op.limit is None else "forced").inc()
        self.committed_tokens.inc(op.tokens)
        self.erased_tokens.inc(op.erased_tokens)
        self.recomputed_tokens.inc(op.recomputed)
        self.uncertainty.observe(op.uncertainty.u)
        self.attempts.observe(op.attempts)
        if op.attempts > 1:
            self.drop.observe(op.first_u - op.uncertainty.u)
        if op.reason is not None and op.limit is None:
            self.shadow_erasures.inc()
