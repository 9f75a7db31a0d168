"""The numbers of one process, for Prometheus: counted where things happen, shown at ``/metrics``.

Labels are names of our own (outcomes, reasons, codes), never what a client or an upstream said. Each app has
a registry of its own; nothing is counted in modules.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from voice_fsm.errors import ProviderError, Upstream
from voice_fsm.fsm.effects import Effect, ErrorTold, TurnEnded, TurnInterrupted, TurnTimed

SpeechSource = Literal["synthesis", "joined", "memory", "disk"]
DropReason = Literal["too_fast", "recogniser_away"]
SynthesisOutcome = Literal["completed", "failed", "abandoned"]

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The MIME type of `Metrics.text`."""

_PREFIX: Final = "voice_fsm"
_LATENCY_BUCKETS_S: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)


class Metrics:
    """What is counted in one process.

    Args:
        worker: Tells this process from others behind the same address, as a label of every sample; empty
            where there are no others.
    """

    def __init__(self, worker: str = "") -> None:
        self._worker = worker
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._active_sessions = self._gauge("sessions_active", "Conversations at this moment.")
        self._occupancy = self._gauge(
            "core_occupancy_ratio", "Share of its core that the event loop used or waited for."
        )
        self._sessions = self._counter("sessions", "Conversations begun.")
        self._turns = self._counter("turns", "Turns that ended.", "outcome")
        self._interruptions = self._counter(
            "interruptions", "Turns cut short while heard or thought of.", "reason"
        )
        self._first_text = self._histogram(
            "turn_first_text_seconds", "From the commit to the reply's first text."
        )
        self._first_audio = self._histogram(
            "turn_first_audio_seconds", "From the commit to the first audio sent to the client."
        )
        self._errors_told = self._counter(
            "errors_told", "Errors that clients of conversations were told.", "code"
        )
        self._upstream_errors = self._counter(
            "upstream_errors",
            "Calls to upstreams that failed, retries within a call not counted.",
            "upstream",
            "code",
        )
        self._breakers: dict[Upstream, list[Callable[[], bool]]] = {}
        self._breaker_open = self._gauge(
            "breaker_open", "1 while the upstream is left alone because it keeps failing.", "upstream"
        )
        self._dropped_audio = self._counter(
            "microphone_dropped_seconds", "Microphone audio that was not recognised.", "reason"
        )
        self._speech_requests = self._counter(
            "speech_requests",
            "Texts asked for outside of conversations, by where their audio came from.",
            "source",
        )
        self._syntheses = self._counter("syntheses", "Texts synthesized outside of conversations.", "outcome")
        self._synthesized_bytes = self._counter("synthesized_bytes", "Audio that was synthesized for them.")
        self._cached_bytes = self._counter("cached_bytes", "Audio that the cache gave in its place.")
        self._cache_memory = self._gauge("cache_memory_bytes", "What the cache takes of memory.")

    # --- conversations ------------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[None]:
        """Count a conversation, for the block."""
        self._sessions.inc()
        with self._active_sessions.track_inprogress():
            yield

    def note(self, effect: Effect) -> None:
        """Count what a session's core asked for, where there is something to count."""
        match effect:
            case TurnEnded(_, outcome):
                self._turns.labels(outcome).inc()
            case TurnInterrupted():
                self._interruptions.labels(effect.reason).inc()
            case TurnTimed():
                _observe_ms(self._first_text, effect.first_text_ms)
                _observe_ms(self._first_audio, effect.first_audio_sent_ms)
            case ErrorTold():
                self._errors_told.labels(effect.code).inc()

    def dropped(self, reason: DropReason, duration_s: float) -> None:
        """Count microphone audio that nobody will hear."""
        self._dropped_audio.labels(reason).inc(duration_s)

    def watch_occupancy(self, share: Callable[[], float]) -> None:
        """Show how full the core is from now on."""
        self._occupancy.set_function(share)

    # --- upstreams ----------------------------------------------------------------------------------

    def upstream_failed(self, error: ProviderError) -> None:
        """Count a call that failed."""
        self._upstream_errors.labels(error.upstream.value, error.code).inc()

    def watch_breaker(self, upstream: Upstream, is_open: Callable[[], bool]) -> None:
        """Show a breaker's state from now on; where several agents have one each, whether any is open."""
        watched = self._breakers.setdefault(upstream, [])
        watched.append(is_open)
        self._breaker_open.labels(upstream.value).set_function(lambda: float(any(ask() for ask in watched)))

    # --- speech outside of conversations ------------------------------------------------------------

    def speech_requested(self, source: SpeechSource) -> None:
        """Count a request whose audio has begun to come."""
        self._speech_requests.labels(source).inc()

    def synthesis_ended(self, outcome: SynthesisOutcome, audio_bytes: int) -> None:
        """Count a synthesis, and what it gave until then."""
        self._syntheses.labels(outcome).inc()
        self._synthesized_bytes.inc(audio_bytes)

    def cache_gave(self, audio_bytes: int) -> None:
        """Count audio that did not have to be synthesized."""
        self._cached_bytes.inc(audio_bytes)

    def watch_cache(self, memory_bytes: Callable[[], float]) -> None:
        """Show what the cache takes from now on."""
        self._cache_memory.set_function(memory_bytes)

    # --- showing ------------------------------------------------------------------------------------

    def text(self) -> bytes:
        """All of it in Prometheus' text format (version 0.0.4)."""
        return generate_latest(_Shown(self._registry, self._worker))

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(f"{_PREFIX}_{name}", help_, labels, registry=self._registry)

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(f"{_PREFIX}_{name}", help_, labels, registry=self._registry)

    def _histogram(self, name: str, help_: str) -> Histogram:
        return Histogram(f"{_PREFIX}_{name}", help_, registry=self._registry, buckets=_LATENCY_BUCKETS_S)


class _Shown(Collector):
    """A registry's metrics, with the worker's name on every sample, and without the times of creation."""

    def __init__(self, registry: CollectorRegistry, worker: str) -> None:
        self._registry = registry
        self._labels = {"worker": worker} if worker else {}

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, **self._labels})
                for sample in metric.samples
                if not sample.name.endswith("_created")
            ]
            yield metric


def _observe_ms(histogram: Histogram, value_ms: float | None) -> None:
    if value_ms is not None:
        histogram.observe(value_ms / 1000)
