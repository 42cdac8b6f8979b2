"""The tallies of authz say what the counters of the library would say."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from authz.tallies import Durations, LabelledTallies, TallyGauge

BOUNDS_S = (0.00025, 0.01, 1.0, 2.0)
DURATIONS_S = (0.0, 0.00025, 0.0003, 0.5, 1.0, 1.5, 2.0, 90.0)


def _written(registry: CollectorRegistry) -> list[str]:
    """Return what is scraped, apart from when each number was first counted."""
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


def test_are_scraped_as_the_librarys_are() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    decisions = LabelledTallies("decisions", "By code.", ("outcome", "code"))
    in_flight = TallyGauge("in_flight", "Now.")
    seconds = Durations("seconds", "How long.", BOUNDS_S)
    for collector in (decisions, in_flight, seconds):
        ours.register(collector)
    counter = Counter("decisions", "By code.", ("outcome", "code"), registry=theirs)
    gauge = Gauge("in_flight", "Now.", registry=theirs)
    histogram = Histogram("seconds", "How long.", buckets=BOUNDS_S, registry=theirs)
    for values in (("allow", "ok"), ("deny", "no"), ("allow", "ok")):
        decisions.of(*values).inc()
        counter.labels(*values).inc()
    for each in (in_flight, gauge):
        each.inc()
        each.inc()
        each.dec()
    for duration_s in DURATIONS_S:
        seconds.observe(duration_s)
        histogram.observe(duration_s)
    assert _written(ours) == _written(theirs)


def test_a_name_is_registered_once() -> None:
    registry = CollectorRegistry()
    registry.register(TallyGauge("in_flight", "Now."))
    assert registry.get_sample_value("in_flight") == 0
