"""Counters, shown in Prometheus' format.

Counting is done in plain numbers: the library (50 ms of imports, megabytes) is loaded when somebody scrapes.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import Metric

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Histogram:
    """How often a duration fell into which bucket (upper bounds in seconds; the last one has none)."""

    def __init__(self, bounds_s: Sequence[float] = BUCKETS_S) -> None:
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration."""
        self._counts[bisect.bisect_left(self._bounds_s, duration_s)] += 1
        self.sum_s += duration_s

    def cumulative(self) -> list[tuple[str, float]]:
        """(upper bound, how many were at most that long)."""
        total, rows = 0, []
        for bound, count in zip((*map(str, self._bounds_s), "+Inf"), self._counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


@dataclasses.dataclass(frozen=True, slots=True)
class Gauges:
    """The state's numbers at one moment."""

    revision: int
    tenants: int
    networks: int
    hosts: int
    hosts_connected: int
    endpoints: int


class Metrics:
    """What one controller process has counted since its start."""

    def __init__(self) -> None:
        self.requests: collections.Counter[tuple[str, str, int]] = collections.Counter()
        """(method, route's pattern, status): bounded by the routes, never by what clients ask for."""
        self.request_s = Histogram()
        self.commit_s = Histogram()
        self.authentication_failures = 0
        self.connections: collections.Counter[str] = collections.Counter()
        """What befell connections at the gate, in its words, which are few."""
        self.connections_open: Callable[[], dict[str, int]] = dict

    def render(self, gauges: Gauges) -> tuple[bytes, str]:
        """The text and its content type. Blocks 50 ms the first time: call it on a thread."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(self, gauges))
        return generate_latest(registry), CONTENT_TYPE_LATEST


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for field in dataclasses.fields(self._gauges):
            text = f"{field.name.replace('_', ' ').capitalize()}."
            yield GaugeMetricFamily(f"hawse_{field.name}", text, value=getattr(self._gauges, field.name))
        requests = CounterMetricFamily("hawse_requests", "Requests.", labels=["method", "route", "status"])
        for (method, route, status), count in list(self._metrics.requests.items()):
            requests.add_metric([method, route, str(status)], count)
        yield requests
        failures = self._metrics.authentication_failures
        yield CounterMetricFamily("hawse_authentication_failures", "Credentials refused.", value=failures)
        happened = CounterMetricFamily("hawse_connections", "What befell connections at the gate.", labels=["what"])
        for what, count in list(self._metrics.connections.items()):
            happened.add_metric([what], count)
        yield happened
        open_ = GaugeMetricFamily("hawse_connections_open", "TCP connections, by what they have proved.", labels=["of"])
        for of, count in self._metrics.connections_open().items():
            open_.add_metric([of], count)
        yield open_
        for name, text, histogram in (
            ("request", "Time to handle a request.", self._metrics.request_s),
            ("commit", "Time to commit a transaction durably.", self._metrics.commit_s),
        ):
            yield HistogramMetricFamily(
                f"hawse_{name}_seconds", text, buckets=histogram.cumulative(), sum_value=histogram.sum_s
            )


def gauges_of(core: Any) -> Gauges:
    """The numbers of a core, now."""
    state = core.state
    return Gauges(
        revision=core.revision,
        tenants=len(state.tenants),
        networks=len(state.networks),
        hosts=len(state.hosts),
        hosts_connected=sum(host.connected for host in core.status().hosts),
        endpoints=len(state.endpoints),
    )
