"""The whole box on real threads, real models and real video, and every fault it must live through."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
from tinymodel import box_text, save_detector

from edgeward.errors import BudgetError, ConfigError, ModelError, StoreError
from edgeward.serve.box import Box
from edgeward.serve.configfile import load_config, parse_config
from edgeward.serve.log import read_log
from edgeward.serve.replay import replay

PEOPLE = "test://people?seed=1&fps=25&width=160&height=120&frames={frames}&objects=2"


def ran(text, seconds=None, **options):
    """A box that ran to its end and was closed, and its report from just before closing."""
    config = parse_config(text, "box.yaml", options.pop("overrides", ()))
    box = Box(config, **options)
    with box:
        box.run(seconds)
        report = box.report()
    return box, report


def test_two_cameras_two_models_every_frame_answered_stored_and_logged(tmp_path):
    cameras = {"a": PEOPLE.format(frames=50), "b": PEOPLE.format(frames=40)}
    box, report = ran(
        box_text(tmp_path, cameras, models=2),
        overrides=["cameras.a.backpressure=every_frame", "cameras.b.backpressure=every_frame"],
    )
    assert [(q.name, q.due, q.in_time + q.late, q.skipped) for q in report.queries] == [
        ("a-m0", 50, 50, 0),
        ("b-m1", 40, 40, 0),
    ]
    assert [camera.status for camera in report.cameras] == ["ended", "ended"]
    assert {model.status for model in report.models} == {"resident"}
    assert report.memory.resident_bytes == sum(model.bytes for model in report.models)
    rows = (
        sqlite3.connect(tmp_path / "data/box.sqlite")
        .execute("SELECT query, count(*) FROM results GROUP BY query")
        .fetchall()
    )
    assert rows == [("a-m0", 50), ("b-m1", 40)]
    newest = box.detections("a-m0", limit=1)[0]
    assert newest["frame_index"] == 49
    assert newest["result"]["class_id"] == [0]
    assert newest["result"]["class_name"] == ["cat"]
    (recording,) = read_log(tmp_path / "data/log")
    assert replay(recording, "edf-lru").identical


def test_the_embedded_default_finds_the_cyclists(tmp_path):
    """The bundled clip through the bundled detector: 75 boxes of at least .3 in 59 of its 250 frames (data README)."""
    overrides = ["cameras.street.loop=false", "cameras.street.rate=max", "cameras.street.backpressure=every_frame"]
    overrides += [
        "queries.0.tracker=false",
        "queries.0.zones=[]",
        "web.enabled=false",
        f"data={tmp_path}",
        "budget.threads=1",
    ]
    box = Box(load_config(None, overrides))
    with box:
        box.run()
    results = [row["result"] for row in box.detections("people-in-the-street", limit=1000)]
    assert len(results) == 250
    boxes = [len(result["xyxy"]) for result in results]
    assert 72 <= sum(boxes) <= 78
    assert 57 <= sum(count > 0 for count in boxes) <= 61
    scenes = box.detections("what-is-it", limit=1000)
    assert scenes
    assert all(min(scene["result"]["top"], default=1) >= 0.2 for scene in scenes)


@pytest.mark.alone  # a live box needs a core to keep up
def test_four_models_in_half_the_memory_all_get_served(tmp_path):
    cameras = {name: PEOPLE.format(frames=75) for name in "abcd"}
    text = box_text(tmp_path, cameras, models=4)
    total = sum(model.bytes for model in ran(text, seconds=0)[1].models)
    _, report = ran(text, overrides=[f"budget.memory={total // 2}"])
    assert report.memory.resident_bytes <= total // 2
    assert sum(model.evictions for model in report.models) > 0
    assert all(query.in_time > 40 for query in report.queries), report.queries


def test_truth_scores_a_live_run(tmp_path):
    from edgeward.vision.sources import open_source

    source = PEOPLE.format(frames=60)
    lines = []
    with_truth = open_source(source)
    for index in range(60):
        for number, (x1, y1, x2, y2) in enumerate(with_truth.truth(index).xyxy.tolist()):
            lines.append(f"{index + 1},{number + 1},{x1},{y1},{x2 - x1},{y2 - y1},1,-1,-1,-1")
    (tmp_path / "gt.txt").write_text("\n".join(lines))
    from edgeward.vision.truth import load_truth

    text = box_text(tmp_path, {"a": source}).replace("[cat, dog]", "[person, dog]")
    box, _ = ran(text, truths={"a": load_truth(tmp_path / "gt.txt")})
    accuracy = box.report().queries[0].accuracy  # complete once closed
    assert accuracy["answered"] > 0.9
    assert 0 <= accuracy["streaming_ap50"] <= 1
    assert 0 <= accuracy["ap50"] < 0.5  # a constant box does not find walking people
    with pytest.raises(ConfigError, match="answers cat, dog: nothing can match"):
        ran(text.replace("[person, dog]", "[cat, dog]"), truths={"a": load_truth(tmp_path / "gt.txt")})
    with pytest.raises(ConfigError, match="--truth names camera 'b'"):
        ran(text, truths={"b": load_truth(tmp_path / "gt.txt")})


def test_an_unreachable_camera_never_holds_up_the_others(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    cameras = {"dead": f"rtsp://user:secret@127.0.0.1:{port}/x", "good": PEOPLE.format(frames=75)}
    _, report = ran(box_text(tmp_path, cameras), seconds=4)
    dead, good = report.cameras
    assert dead.status in ("retrying", "connecting") or "before that" in dead.detail
    assert "secret" not in json.dumps(report.model_dump(mode="json"))
    assert "secret" not in (tmp_path / "data/log/events.000000.jsonl").read_text()
    assert good.frames == 75
    assert report.queries[1].in_time >= 70


@pytest.mark.parametrize(("kind", "content"), [("zero bytes", b""), ("noise", b"\x00\x01junk" * 500)])
def test_a_broken_video_leaves_the_others_alone(tmp_path, kind, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    cameras = {"bad": str(tmp_path / "bad.mp4"), "good": PEOPLE.format(frames=50)}
    _, report = ran(box_text(tmp_path, cameras), seconds=3)
    assert report.cameras[0].status in ("retrying", "ended")
    assert "bad.mp4" in report.cameras[0].detail
    assert report.queries[1].in_time >= 45


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.unlink(), "m0.onnx"),
        (lambda p: p.write_bytes(b""), "m0.onnx"),
        (lambda p: p.write_bytes(p.read_bytes()[:300]), "m0.onnx"),
        (lambda p: p.write_bytes(os.urandom(2000)), "m0.onnx"),
        (lambda p: save_detector(p, classes=7), "4 . classes"),
        (lambda p: save_detector(p, outputs=4), "4 . classes"),
        (lambda p: save_detector(p, boxes=5_000_000, width=1), "4 . classes"),
    ],
    ids=["missing", "empty", "truncated", "noise", "wrong class count", "absurd rows", "absurd boxes"],
)
def test_a_bad_model_file_is_refused_at_start(tmp_path, spoil, message):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)})
    spoil(tmp_path / "m0.onnx")
    with pytest.raises(ModelError, match=message) as caught:
        ran(text)
    assert str(caught.value).startswith("model 'm0': ")


def test_a_model_of_another_task_is_refused(tmp_path):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)}, entry=", task: embedding")
    with pytest.raises(ModelError, match="its task is detection, not embedding"):
        ran(text)
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)}, queries=["  - {camera: a, model: m0, task: embedding}"])
    with pytest.raises(ConfigError, match="wants embedding, but model 'm0' does detection"):
        ran(text)


def test_a_source_that_can_never_work_is_refused_with_its_camera(tmp_path):
    with pytest.raises(ConfigError, match=r"camera 'b': .*did you mean 'rtsp'"):
        ran(box_text(tmp_path, {"a": PEOPLE.format(frames=5), "b": "rstp://host/x"}))


def test_another_kind_of_model_file_says_what_it_is(tmp_path):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)}).replace("m0.onnx", "m0.pth")
    (tmp_path / "m0.onnx").rename(tmp_path / "m0.pth")
    with pytest.raises(ModelError, match="is a PyTorch checkpoint; export it to ONNX first"):
        ran(text)


def test_an_unknown_class_names_the_nearest(tmp_path):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)}, queries=["  - {camera: a, model: m0, classes: [catt]}"])
    with pytest.raises(ConfigError, match="did you mean 'cat'"):
        ran(text)


def test_a_zone_without_area_is_refused_before_anything_starts(tmp_path):
    query = "  - {camera: a, model: m0, tracker: true, zones: [{name: line, polygon: [[0, 0], [1, 1], [0.5, 0.5]]}]}"
    with pytest.raises(ConfigError, match="zone 'line' has no area"):
        ran(box_text(tmp_path, {"a": PEOPLE.format(frames=5)}, queries=[query]))


def test_a_budget_below_the_model_is_refused_before_anything_starts(tmp_path):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)}, extra="budget: {memory: 100 B}")
    with pytest.raises(BudgetError, match="raise the budget"):
        ran(text)


def test_a_model_whose_weights_vanish_is_retried_and_the_others_go_on(tmp_path):
    cameras = {"a": PEOPLE.format(frames=60), "b": PEOPLE.format(frames=60)}
    box = Box(parse_config(box_text(tmp_path, cameras, models=2), "box.yaml"))
    for segment in {ref.segment for ref in box.models["m1"].packed.tensors.values()}:
        (tmp_path / "cache/weights" / segment).rename(tmp_path / segment)
    with box:
        box.run(2.0)
        failed = box.report()
    assert failed.models[1].status == "failed"
    assert "cannot be read" in failed.models[1].detail
    assert failed.queries[0].in_time > 40
    assert failed.queries[1].in_time == 0


def test_two_boxes_never_share_a_data_folder(tmp_path):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=5)})
    first = Box(parse_config(text, "box.yaml"))
    with pytest.raises(StoreError, match="another box is using"):
        Box(parse_config(text, "box.yaml"))
    first.close()
    Box(parse_config(text, "box.yaml")).close()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk needs root to be mounted")
def test_a_full_disk_costs_stored_results_but_no_answers(tmp_path):
    disk = tmp_path / "data"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=140k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        _, report = ran(box_text(tmp_path, {"a": PEOPLE.format(frames=100)}))
        answered = report.queries[0].in_time + report.queries[0].late
        assert answered >= 90
        assert any("full" in warning or "No space" in warning for warning in report.warnings)
        for recording in read_log(disk / "log"):
            assert replay(recording, "edf-lru").identical
    finally:
        subprocess.run(["umount", disk], check=True)


class Process:
    """`edgeward serve` as a user starts it."""

    def __init__(self, folder, text, *options):
        (folder / "box.yaml").write_text(text)
        command = [sys.executable, "-m", "edgeward", "serve", str(folder / "box.yaml"), *options]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def until(self, words, timeout=60):
        """Read standard error up to a line with `words`."""
        end = time.monotonic() + timeout
        seen = []
        while time.monotonic() < end:
            line = self.child.stderr.readline()
            seen.append(line)
            if words in line:
                return line
            if not line and self.child.poll() is not None:
                break
        raise AssertionError("".join(seen))


def test_sigterm_drains_within_five_seconds_and_reports(tmp_path):
    process = Process(tmp_path, box_text(tmp_path, {"a": PEOPLE.format(frames=100000)}), "--json")
    process.until("first result after")
    time.sleep(1)
    asked = time.monotonic()
    process.child.send_signal(signal.SIGTERM)
    output, _ = process.child.communicate(timeout=10)
    assert time.monotonic() - asked < 5
    assert process.child.returncode == 0
    report = json.loads(output)
    assert report["queries"][0]["waiting"] == 0
    stored = sqlite3.connect(tmp_path / "data/box.sqlite").execute("SELECT count(*) FROM results").fetchone()[0]
    assert stored == report["queries"][0]["in_time"] + report["queries"][0]["late"]


def test_kill_9_at_any_moment_leaves_store_and_log_readable(tmp_path):
    text = box_text(tmp_path, {"a": PEOPLE.format(frames=100000)})
    for wait in (0.0, 0.7, 1.4):
        process = Process(tmp_path, text)
        process.until("first result after")
        time.sleep(wait)
        process.child.kill()
        process.child.communicate()
    db = sqlite3.connect(tmp_path / "data/box.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    recordings = read_log(tmp_path / "data/log")
    assert len(recordings) == 3
    assert all(replay(recording, "edf-lru").identical for recording in recordings)


def test_a_mistake_ends_in_one_line_and_code_2(tmp_path):
    process = Process(tmp_path, box_text(tmp_path, {"a": "x"}).replace("queries:", "querys:"))
    _, errors = process.child.communicate(timeout=60)
    assert process.child.returncode == 2
    assert errors.count("\n") == 1
    assert "did you mean 'queries'?" in errors


def test_a_box_without_a_single_frame_says_why_and_fails(tmp_path):
    process = Process(tmp_path, box_text(tmp_path, {"a": str(tmp_path / "none.mp4")}), "--seconds", "3")
    _, errors = process.child.communicate(timeout=60)
    assert process.child.returncode == 2
    assert "camera a: retrying" in errors
    assert "none.mp4" in errors
    assert errors.splitlines()[-1].startswith("edgeward: no camera delivered")


def test_a_port_in_use_is_named_before_any_camera_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(tmp_path, box_text(tmp_path, {"a": PEOPLE.format(frames=5)}), "--set", f"web.port={port}")
        _, errors = process.child.communicate(timeout=60)
    assert process.child.returncode == 2
    assert f"port {port}" in errors.splitlines()[-1]
