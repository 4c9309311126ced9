"""The table of the docs, made from a benchmark's results: `python benchmarks/table.py serve`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """One page for a benchmark."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"# Benchmark `{result['bench']}`",
        "",
        f"Written by `edgeward bench {result['bench']} --{result['mode']} --save` on {result['device']}; {versions}.",
        f"Load average at the end: {result['load']}. `x` rows are medians of paired, interleaved runs, with the extremes.",
        "",
        "| row | ours | spread | bar | met | baseline |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_line(row) for row in result["rows"]]
    lines += ["", "## What the rows mean", ""]
    lines += [f"- `{row['id']}`: {row['definition']}.{_note(row)}" for row in result["rows"]]
    return "\n".join(lines) + "\n"


README_ROWS = {
    "serve": {
        "ssdlite.fps_vs_bare": "frames per second, SSDLite with tracker and store / a bare loop of decode, run, decode boxes",
        "fastestdet.fps_vs_bare": "the same, FastestDet (a 3 ms model)",
        "fastestdet.fps_with_page_vs_bare": "the same, while a browser on the same two cores shows the page",
        "fastestdet.fps_vs_supervision": "the same / the loop with `supervision` and `trackers`",
        "sharing.in_time": "frames answered in time: 4 cameras, 4 models, half the memory they need (never swapping: see there)",
        "weights.load_speedup": "loading SSDLite through the weight store / plain ONNX Runtime, every load but the first",
        "weights.first_load_speedup": "the same, the first load in a process",
        "weights.four_sessions_memory": "memory of four sessions of one model / one",
        "nanodet.cpu_ms": "NanoDet 416, CPU time of one inference on one thread",
        "ssdlite.cpu_ms": "SSDLite 300, the same",
    },
    "plan": {
        "golden.answers": "answers equal to Scission's published tables, to four decimals",
        "exactness.wrong": "random constrained instances whose five best plans differ from brute force",
        "scale.seconds": "ten best plans of 1,000 blocks on 50 devices",
        "queries.slowest_ms": "slowest constrained query, the study's eighteen networks on five machines",
        "emulated.onnxruntime.median_error": "predicted against really run latency, 20 plans on slowed devices and thin links, ONNX Runtime",
        "emulated.torch.median_error": "the same, torch",
        "emulated.onnxruntime.median_error_flops": "the same with times in proportion to multiply-accumulates, ONNX Runtime",
        "resnet50.cut_seconds": "tracing, cutting and checking ResNet-50",
    },
    "split": {
        "golden.scissionlite": "rows of ScissionLite's published query that come out, to four decimals",
        "wire.round_trip_ms": "1 MiB to another process and back over Zenoh",
        "codec.int8.encode_gb_s": "int8, gigabytes of float32 encoded per second on one thread",
        "codec.int8.decode_gb_s": "the same, decoded",
        "codec.int4+zero+zstd.bytes": "bytes of a map behind a ReLU with 4 bits, zeros left out, zstd / float32",
        "run.median_error": "predicted against measured latency, real nodes over TLS on slowed devices and thin links",
        "run.stream_over_bound": "results per second / what the slowest stage or link allows",
        "run.gap_after_kill": "longest wait for a result after `kill -9` of the edge's node",
        "run.lost_after_kill": "results lost, repeated or out of order then",
        "curve.5.best": "latency without / with transfer layer at 5 Mbit/s, each at its best cut",
        "curve.5.local": "device alone / with transfer layer, the same",
        "curve.5.joint": "the joint planner's choice / the best of all rows, the same",
    },
    "prune": {
        "rival.resnet50.latency": "ResNet-50 pruned by Torch-Pruning / by us at no more parameters, latency",
        "rival.mobilenet-v2.latency": "the same, MobileNetV2",
        "rival.vit-tiny.latency": "the same, ViT-tiny",
        "switch.borrowed.p99_ms": "changing a variant of 22 MB from the memory-mapped store, 99th percentile",
        "switch.borrowed.over.session": "reloading it from disk / opening it from the store",
        "memory.borrowed.pss": "memory of six variants held apart / of the store",
        "convert.resnet50.seconds": "exact conversion of a sparse ResNet-50, comparison included",
        "portfolio.made_vs_trained_anew": "training a variant anew for twenty epochs / converting it from its mask",
    },
    "merge": {
        "high.saved": "six models of one family, weights saved by sharing layers",
        "high.accuracy": "least accuracy of one of them on pictures held out / unmerged",
        "mixed.saved": "six models of three families, weights saved",
        "mixed.accuracy": "the same least accuracy",
        "mixed.over_stem": "weights saved more than by a shared frozen stem, three families",
        "high.process.fall": "memory of the serving process that is saved / bytes of weights saved",
        "high.load.disk": "loading a merged model from disk with its sharers in memory / alone",
        "lite0.saved": "weights saved by sharing layers, six EfficientNet-Lite0 (CIFAR-10)",
        "lite0.accuracy": "least accuracy of one of them on pictures held out / unmerged",
        "high.live.min.over_mru": "accuracy on screen in the memory of one small network, live, loads at 100 MB/s / time sharing, unmerged",
        "high.live.50.over_mru": "the same, half of the way to memory for all",
        "high.live.75.over_mru": "the same, three quarters of the way",
        "lite0.live.min.over_mru": "the same in the memory of one EfficientNet-Lite0",
        "lite0.live.50.over_mru": "the same, half of the way to memory for all",
        "lite0.live.75.over_mru": "the same, three quarters of the way",
    },
    "select": {
        "select.live.mixed.over_best_fixed": "real box beside 0, 1, 2 busy processes, streaming AP of ours, with memory, over the best fixed model's without, all loads",
        "select.live.mixed.over_best_fixed_remembering": "the same, with the same memory in both",
        "select.live.mixed.forgetting_over_best_fixed": "the same, without memory in either",
        "select.live.mixed.over_tod": "over TOD's rule without memory",
        "select.live.mixed.over_tod_remembering": "over TOD's rule, with the same memory",
        "select.live.mixed.forgetting_over_tod": "over TOD's rule, without memory in either",
        "select.live.mixed.forgetting_over_tod_of_models": "over TOD's rule with the six models alone, without memory in either",
        "select.live.mixed.over_chameleon": "over Chameleon's rule without memory",
        "select.video.mixed.over_best_fixed": "virtual clock with measured latencies, longer films: ours, with memory, over the best fixed model without, all loads",
        "select.video.mixed.over_best_fixed_rung": "over the best fixed rung without, two models together or in turn among them",
        "select.video.mixed.over_best_fixed_remembering": "over the best fixed model with the same memory",
        "select.video.mixed.forgetting_over_best_fixed": "over the best fixed model, without memory in either",
        "select.video.mixed.over_tod": "over TOD's rule without memory",
        "select.video.mixed.over_tod_remembering": "over TOD's rule with the same memory",
        "select.video.mixed.forgetting_over_tod": "over TOD's rule, without memory in either",
        "select.video.mixed.forgetting_over_tod_of_models": "over TOD's rule with the six models alone, without memory in either",
        "select.video.mixed.over_chameleon": "over Chameleon's rule without memory",
        "select.video.mixed.over_forgetting": "over ours without memory",
        "select.video_3x_speed.mixed.over_best_fixed": "films three times as fast: over the best fixed model without memory",
        "select.moved.mixed.over_best_fixed": "with tracker and forecast in all, over the best fixed model without memory",
        "select.moved.mixed.over_best_fixed_remembering": "the same, with memory in all, too",
        "select.moved.mixed.over_not_moved": "ours with forecast over ours without",
        "select.cameras.mixed.over_best_single": "four cameras on one processor, mean streaming AP of ours, with memory, over the best single model's without, mean of all loads",
        "select.cameras.mixed.over_best_single_remembering": "the same, with the same memory in both",
        "select.cameras.mixed.forgetting_over_best_single": "the same, without memory in either",
        "select.cameras.1x.over_best_single": "without memory in the single model, nothing else running: the load at which the choice gains least",
        "select.memory.center320.over_alone": "one detector with memory of the last moments over itself without, AP on fresh frames",
        "select.memory.over_supervision": "memory over supervision's smoother, the same boxes",
        "select.tiles.fast.over_center320": "a small detector in two tiles over a larger one that takes as long, AP on fresh frames",
        "select.tiles.joined.over_sahi": "tiles put together, over the best of SAHI's ways, AP on fresh frames",
        "select.hundred.changing.over_best_rival": "a hundred synthetic worlds, changing load, over the best rival",
        "select.live.2x.virtual_clock.ours": "virtual clock against the real box, the same frames, one busy process",
        "select.cost.choice": "time to choose, of a frame's time at 30 a second",
    },
}


def readme(result: dict[str, Any], text: str) -> str:
    """The README with the chosen rows between the benchmark's two marks."""
    rows = {row["id"]: row for row in result["rows"]}
    lines = ["", f"On {result['device']}, one compute thread:", "", "| what | figure | bar |", "| --- | --- | --- |"]
    for id_, words in README_ROWS[result["bench"]].items():
        row = rows[id_]
        missed = " (missed)" if row["met"] is False else ""
        figure = "not measured" if row["ours"] is None else f"{row['ours']:.3g} {row['unit']}"
        lines.append(f"| {words} | {figure} | {row['bar']}{missed} |".replace("fraction", ""))
    begin, end = f"<!-- figures {result['bench']} -->", f"<!-- /figures {result['bench']} -->"
    before, rest = text.split(begin)
    return before + begin + "\n".join([*lines, ""]) + f"\n{end}" + rest.split(end)[1]


def write(result: dict[str, Any], root: Path) -> None:
    """Write the page of the docs and, of a full run, the README's figures."""
    (root / "docs" / f"benchmark-{result['bench']}.md").write_text(markdown(result))
    if result["bench"] in README_ROWS and result["mode"] == "full":
        front = root / "README.md"
        front.write_text(readme(result, front.read_text()))


def _line(row: dict[str, Any]) -> str:
    ours = "not measured" if row["ours"] is None else f"{row['ours']:.4g} {row['unit']}".strip()
    spread = " to ".join(f"{value:.3g}" for value in row["spread"])
    met = {True: "yes", False: "**no**", None: ""}[row["met"]]
    return "| " + " | ".join((f"`{row['id']}`", ours, spread, row["bar"], met, str(row["baseline"]))) + " |"


def _note(row: dict[str, Any]) -> str:
    return f" {row['note']}." if row["note"] else ""


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    saved = json.loads((here / "results" / f"{sys.argv[1]}.json").read_text())
    write(saved, here.parent)
