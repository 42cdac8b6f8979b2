"""The metrics of reading the access-log file."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class FileMetrics:
    """Counters and gauges of one access-log file, in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lines = Counter(
            "tollkeeper_access_log_file_lines",
            "Lines by what they were: ending, undecided, other, malformed, torn, too_long.",
            ["kind"],
            registry=registry,
        )
        self.restarts = Counter(
            "tollkeeper_access_log_file_restarts",
            "Readings begun again at the oldest file: missing, truncated, replaced.",
            ["reason"],
            registry=registry,
        )
        self.is_reading = Gauge(
            "tollkeeper_access_log_file_is_reading",
            "1 where this meter is the one that reads the file.",
            registry=registry,
        )
        self.unread_bytes = Gauge(
            "tollkeeper_access_log_file_unread_bytes",
            "What is behind the reader's position, in all files.",
            registry=registry,
        )
        self.lag_seconds = Gauge(
            "tollkeeper_access_log_file_lag_seconds",
            "Since when there has always been something that ought to have been read.",
            registry=registry,
        )
        self.rotations = Counter(
            "tollkeeper_access_log_file_rotations",
            "Files renamed because they had grown over the limit.",
            registry=registry,
        )
        self.files = Gauge(
            "tollkeeper_access_log_file_files",
            "Files of the log on disk, rotated ones included.",
            registry=registry,
        )
        self.bytes = Gauge(
            "tollkeeper_access_log_file_bytes",
            "Bytes of the log on disk, rotated files included.",
            registry=registry,
        )
        self.write_failed = Gauge(
            "tollkeeper_access_log_file_write_failed",
            "Envoy's own count of writes that failed since it started: lines were lost.",
            registry=registry,
        )
        self.reopen_failed = Gauge(
            "tollkeeper_access_log_file_reopen_failed",
            "Envoy's own count of log files that it could not open anew since it started.",
            registry=registry,
        )
        self.maintenance_failures = Counter(
            "tollkeeper_access_log_file_tending_failures",
            "Looks at Envoy's statistics, rotations and deletions that failed.",
            registry=registry,
        )
