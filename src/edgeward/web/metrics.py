"""What a box reports, in Prometheus' words.

    registry = metrics_registry(box)
    print(generate_latest(registry).decode())

Nothing is counted here: each scrape reads one report. Names follow the Prometheus conventions:
base units (`_seconds`, `_bytes`), counters end in `_total`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edgeward.serve.report import BoxReport, BoxView, CameraReport, ModelReport, QueryReport

__all__ = ["BoxCollector", "metrics_registry"]


def metrics_registry(box: BoxView) -> CollectorRegistry:
    """A registry of its own that reads `box` at scrape time."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BoxCollector(box))
    return registry


class BoxCollector(Collector):
    """Turns one report into metric families."""

    def __init__(self, box: BoxView) -> None:
        self._box = box

    def collect(self) -> Iterator[Metric]:
        """All families of one moment."""
        report = self._box.report()
        yield from _box_metrics(report)
        yield from _memory_metrics(report)
        yield from _camera_metrics(report.cameras)
        yield from _model_metrics(report.models)
        yield from _query_metrics(report.queries)
        yield from _zone_metrics(report.queries)


Samples = Iterable[tuple[list[str], float | None]]


def _gauge(name: str, words: str, labels: list[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"edgeward_{name}", words, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _counter(name: str, words: str, labels: list[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"edgeward_{name}", words, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric(values, value)
    return family


def _box_metrics(report: BoxReport) -> Iterator[Metric]:
    info = {"version": report.version, "device": report.device, "policy": report.policy}
    yield InfoMetricFamily("edgeward_box", "Version, device and policy of the box", info)
    yield _gauge(
        "box_running", "1 while the box is running, 0 while it starts or drains", [], [([], report.status == "running")]
    )
    yield _gauge("uptime_seconds", "Seconds since the box started", [], [([], report.uptime_seconds)])
    yield _gauge(
        "throughput_fps", "Frames answered per second, all queries together", [], [([], report.throughput_fps)]
    )


def _memory_metrics(report: BoxReport) -> Iterator[Metric]:
    memory = report.memory
    yield _gauge("memory_budget_bytes", "Model weights that may be resident at once", [], [([], memory.budget_bytes)])
    yield _gauge("memory_resident_bytes", "Model weights that are resident", [], [([], memory.resident_bytes)])
    yield _gauge("process_resident_bytes", "Resident memory of the whole process", [], [([], memory.process_bytes)])
    shares: Samples = [([share.model], share.bytes) for share in memory.shares]
    yield _gauge("memory_share_bytes", "Resident bytes a model adds; shared tensors count once", ["model"], shares)


def _camera_metrics(cameras: tuple[CameraReport, ...]) -> Iterator[Metric]:
    label = ["camera"]
    live: Samples = [([c.name], c.status == "live") for c in cameras]
    yield _gauge("camera_live", "1 while the camera delivers frames", label, live)
    yield _gauge("camera_fps", "Frames per second that arrive", label, [([c.name], c.fps) for c in cameras])
    yield _counter("camera_frames", "Frames that arrived", label, [([c.name], c.frames) for c in cameras])
    skipped: Samples = [([c.name], c.skipped) for c in cameras]
    yield _counter("camera_skipped_frames", "Frames given up before inference", label, skipped)
    age: Samples = [([c.name], c.last_frame_age_seconds) for c in cameras]
    yield _gauge("camera_last_frame_age_seconds", "Age of the newest frame", label, age)


def _model_metrics(models: tuple[ModelReport, ...]) -> Iterator[Metric]:
    label = ["model"]
    resident: Samples = [([m.name], m.status == "resident") for m in models]
    yield _gauge("model_resident", "1 while the weights are in memory", label, resident)
    yield _gauge("model_bytes", "Bytes of the model's tensors", label, [([m.name], m.bytes) for m in models])
    yield _counter("model_loads", "Times the weights were loaded", label, [([m.name], m.loads) for m in models])
    yield _counter("model_evictions", "Times they were evicted", label, [([m.name], m.evictions) for m in models])
    yield _counter("model_inferences", "Inference calls", label, [([m.name], m.inferences) for m in models])
    yield _counter("model_frames", "Frames inferred", label, [([m.name], m.frames) for m in models])
    loading: Samples = [([m.name], m.load_seconds_median) for m in models]
    yield _gauge("model_load_median_seconds", "Median duration of a recent load", label, loading)
    histogram = HistogramMetricFamily("edgeward_model_inference_seconds", "Duration of an inference call", labels=label)
    for model in models:
        if model.seconds_histogram:
            bounds = [(f"{bound:g}", float(count)) for bound, count in model.seconds_histogram]
            histogram.add_metric(
                [model.name], [*bounds, ("+Inf", float(model.inferences))], sum_value=model.seconds_sum
            )
    yield histogram


def _query_metrics(queries: tuple[QueryReport, ...]) -> Iterator[Metric]:
    labels = ["query", "camera", "model"]

    def each(field: str) -> Samples:
        return [([q.name, q.camera, q.model], getattr(q, field)) for q in queries]

    yield _counter("query_due_frames", "Frames the query asked for", labels, each("due"))
    yield _counter("query_in_time_frames", "Frames answered within the deadline", labels, each("in_time"))
    yield _counter("query_late_frames", "Frames answered after the deadline", labels, each("late"))
    yield _counter("query_skipped_frames", "Frames never answered", labels, each("skipped"))
    yield _gauge("query_waiting_frames", "Frames that wait for an answer now", labels, each("waiting"))
    yield _gauge("query_deadline_seconds", "Deadline of an answer", labels, each("deadline_seconds"))
    yield _gauge("query_staleness_seconds", "Age of the newest answer", labels, each("staleness_seconds"))
    yield _gauge("query_fps", "Answers per second", labels, each("fps"))


def _zone_metrics(queries: tuple[QueryReport, ...]) -> Iterator[Metric]:
    labels = ["query", "camera", "zone"]
    zones = [([query.name, query.camera, zone.name], zone) for query in queries for zone in query.zones]
    yield _counter("zone_entered", "Tracks that entered", labels, [(key, zone.entered) for key, zone in zones])
    yield _counter("zone_left", "Tracks that left", labels, [(key, zone.left) for key, zone in zones])
    yield _gauge("zone_inside", "Tracks inside now", labels, [(key, zone.inside) for key, zone in zones])
