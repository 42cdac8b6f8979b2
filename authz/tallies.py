"""Counters of what happens in every check, which cost a tenth of the library's.

Those of the library take a lock for each change, because threads may share them. Here only the
event loop counts, and a reader adds nothing to what it finds.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

_ENDLESS: Final = float("inf")


class Tally:
    """A number that goes up, and down where it is a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Add one."""
        self.value += 1

    def dec(self) -> None:
        """Take one off."""
        self.value -= 1


class LabelledTallies(Collector):
    """A counter with labels: one tally for each combination of values that was asked for."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._tallies: dict[tuple[str, ...], Tally] = {}

    def of(self, *values: str) -> Tally:
        """Return the tally of these values of the labels."""
        tally = self._tallies.get(values)
        if tally is None:
            tally = self._tallies[values] = Tally()
        return tally

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers, for the registry."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, tally in self._tallies.items():
            family.add_metric(values, tally.value)
        yield family


class TallyGauge(Tally, Collector):
    """A gauge without labels."""

    __slots__ = ("_documentation", "_name")

    def __init__(self, name: str, documentation: str) -> None:
        super().__init__()
        self._name, self._documentation = name, documentation

    def collect(self) -> Iterator[Metric]:
        """Yield the number, for the registry."""
        yield GaugeMetricFamily(self._name, self._documentation, value=self.value)


class Durations(Collector):
    """A histogram of seconds."""

    def __init__(self, name: str, documentation: str, bounds_s: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds_s = (*bounds_s, _ENDLESS)
        self._counts = [0] * len(self._bounds_s)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        # The bound belongs to its bucket.
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the buckets, each with those below it, for the registry."""
        buckets, below = [], 0
        for bound_s, count in zip(self._bounds_s, self._counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound_s == _ENDLESS else str(bound_s), below))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, self._sum_s)
