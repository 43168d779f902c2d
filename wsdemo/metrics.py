"""What a server has done and what it holds, in numbers, and as Prometheus reads them.

https://prometheus.io/docs/practices/naming/, and for what is of the process it runs in
https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wsdemo.limits import Limits

__all__ = ["Counts", "exposition"]


@dataclass
class Counts:
    """How often what has happened, since the server began."""

    connections: int = 0
    joins: int = 0
    events_received: int = 0
    events_unpublished: int = 0
    broker_messages: int = 0
    events_relayed: int = 0
    deliveries: int = 0
    gaps: int = 0
    rejected_messages: int = 0
    tokens_refused: int = 0
    origins_refused: int = 0
    limits_reached: Counter[str] = field(default_factory=Counter)
    """By the names of the limits: `Limits`."""

    def reach(self, limit: str) -> None:
        """Something was refused, for this limit."""
        self.limits_reached[limit] += 1


WORDS = {
    "connections": "WebSocket connections that clients have made.",
    "joins": "Players that have joined a game.",
    "events_received": "Events that players have sent.",
    "events_unpublished": "Events that the broker did not take, or may not have taken.",
    "broker_messages": "Messages that came from between the servers, for whatever game.",
    "events_relayed": "Events that came back from the broker.",
    "deliveries": "Frames of events written to players.",
    "gaps": "Losses that players were told of.",
    "rejected_messages": "Messages of clients that were refused.",
    "tokens_refused": "Joins with a token that does not let the player in, or none.",
    "origins_refused": "Connections of web pages whose origin the server does not name.",
}


class _Server(Collector):
    """One server's numbers, as they are when somebody asks."""

    def __init__(self, counts: Counts, gauges: Callable[[], dict[str, tuple[str, float]]]) -> None:
        self._counts = counts
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for name, words in WORDS.items():
            yield CounterMetricFamily(f"wsdemo_{name}", words, value=getattr(self._counts, name))
        limits = CounterMetricFamily(
            "wsdemo_limits_reached", "What was refused, by the limit's name.", labels=["limit"]
        )
        for each in fields(Limits):
            limits.add_metric([each.name], self._counts.limits_reached[each.name])
        yield limits
        for name, (words, now) in self._gauges().items():
            yield GaugeMetricFamily(f"wsdemo_{name}", words, value=now)


class _Process(Collector):
    """What the process costs that the server runs in; in a notebook, the kernel, with all of it.

    prometheus_client has a collector for these too, but only for Linux.
    """

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "process_cpu_seconds",
            "Time of a core that the process has used, in user code and in the system.",
            value=time.process_time(),
        )
        yield GaugeMetricFamily(
            "process_resident_memory_bytes",
            "Memory of the machine that the process holds.",
            value=psutil.Process().memory_info().rss,
        )


def exposition(counts: Counts, gauges: Callable[[], dict[str, tuple[str, float]]]) -> bytes:
    """The numbers in Prometheus's text format; `gauges` gives each a description and a value."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Server(counts, gauges))
    registry.register(_Process())
    return generate_latest(registry)
