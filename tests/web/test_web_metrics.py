"""The metrics are valid Prometheus text and say what the report says."""

from __future__ import annotations

import math

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from web_fakebox import FakeBox

from edgeward.web.app import create_app


@pytest.fixture
def box():
    return FakeBox(now=lambda: 620.0)


def scrape(box):
    with TestClient(create_app(box), base_url="http://localhost") as client:
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def values(families, name, *keys):
    family = families[name.removesuffix("_total")]
    return {tuple(s.labels[key] for key in keys): s.value for s in family.samples if s.name == name}


def test_counters_and_gauges_equal_the_report(box):
    families, report = scrape(box), box.report()
    for field in ("due", "in_time", "late", "skipped"):
        expected = {(query.name,): getattr(query, field) for query in report.queries}
        assert values(families, f"edgeward_query_{field}_frames_total", "query") == expected
    assert values(families, "edgeward_camera_frames_total", "camera") == {(c.name,): c.frames for c in report.cameras}
    assert values(families, "edgeward_camera_fps", "camera")[("gate",)] == pytest.approx(report.cameras[0].fps)
    assert values(families, "edgeward_model_loads_total", "model") == {(m.name,): m.loads for m in report.models}
    assert values(families, "edgeward_memory_budget_bytes") == {(): report.memory.budget_bytes}
    shares = {(share.model,): share.bytes for share in report.memory.shares}
    assert values(families, "edgeward_memory_share_bytes", "model") == shares
    zones = values(families, "edgeward_zone_entered_total", "query", "zone")
    assert zones == {("gate-people", z.name): z.entered for z in report.queries[0].zones}
    info = families["edgeward_box"].samples if "edgeward_box" in families else families["edgeward_box_info"].samples
    assert info[0].labels["policy"] == report.policy


def test_histogram_is_cumulative_and_ends_with_all_calls(box):
    samples = scrape(box)["edgeward_model_inference_seconds"].samples
    for model in box.report().models:
        buckets = [
            (float(s.labels["le"]), s.value)
            for s in samples
            if s.labels.get("model") == model.name and s.name.endswith("_bucket")
        ]
        assert [bound for bound, _ in buckets] == sorted(bound for bound, _ in buckets)
        assert [n for _, n in buckets] == sorted(n for _, n in buckets)
        assert buckets[-1] == (math.inf, model.inferences)


def test_names_follow_the_conventions(box):
    for name, family in scrape(box).items():
        assert name.startswith("edgeward_")
        assert not name.endswith(("_ms", "_mib", "_total"))
        assert family.documentation
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


def test_names_with_quotes_and_newlines_survive():
    mark = '"}\n# \\ <b>'
    families = scrape(FakeBox(now=lambda: 620.0, mark=mark))
    assert f"gate{mark}" in {s.labels["camera"] for s in families["edgeward_camera_live"].samples}


def test_nothing_is_registered_globally(box):
    before = set(REGISTRY._names_to_collectors)
    scrape(box)
    scrape(box)
    assert set(REGISTRY._names_to_collectors) == before
