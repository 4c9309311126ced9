"""Benchmark of split inference: `edgeward bench split`.

Bytes and answers are counted; messages, codecs and plans that really run on an emulated fleet are timed.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
sys.path.insert(0, str(HERE))

from harness import interleaved, row, run_sections, shared_data  # noqa: E402

Rows = list[dict[str, Any]]
NO_ROOT = "needs root: control groups and network namespaces"


def run(full: bool = False) -> dict[str, Any]:
    """All sections; quick takes fewer repeats, bandwidths and pictures."""
    sections = {
        "wire": functools.partial(wire, 60 if full else 20),
        "codecs": functools.partial(codecs, 15 if full else 5),
        "golden": golden,
        "accuracy": functools.partial(accuracy, full),
        "emulated fleet, three devices": functools.partial(end_to_end, full),
    }
    if full:
        sections["emulated fleet, transfer layer"] = curve
    return run_sections("split", full, sections)


def wire(repeats: int) -> Rows:
    """A tensor there and back between two processes."""
    from echo import Echo

    size = 1 << 20
    taken: dict[str, list[float]] = {"channel": [], "socket": []}
    for _ in range(3):  # how the two processes share the cores stays as it is while they live
        with Echo(size) as echo:
            for _ in range(5):
                echo.channel(), echo.socket()
            for name, values in interleaved({"channel": echo.channel, "socket": echo.socket}, repeats // 3).items():
                taken[name] += values
            crossed = echo.bytes_per_message(20)
    ours, raw = (1000 * statistics.median(taken[name]) for name in ("channel", "socket"))
    bar = 1.5 * raw + 2
    return [
        row(
            "wire.round_trip_ms",
            "median milliseconds for a message with a tensor of 1 MiB to another process and back over Zenoh on loopback, "
            "shared memory off, three pairs of processes; bar: 1.5 x a raw socket's echo of the same bytes in the same runs + 2 ms",
            baseline=f"raw TCP socket, {raw:.3g} ms",
            ours=ours,
            spread=[1000 * min(taken["channel"]), 1000 * max(taken["channel"])],
            unit="ms",
            bar=f"<= {bar:.2f}",
        ),
        row(
            "wire.bytes_over_payload",
            "bytes that the loopback interface carried for messages of 1 MiB, headers of all layers included / their tensors' bytes (least of five counts)",
            baseline="1",
            ours=crossed / size,
            unit="x",
            bar="<= 1.01",
        ),
    ]


def codecs(repeats: int) -> Rows:
    """On real activations, one thread, beside zfpy and blosc2 at no larger error."""
    import numpy as np
    from features import sparse_map
    from rivals import rivals

    from edgeward.wire.codecs import parse_codec
    from edgeward.wire.codecs.figures import measure_codec

    array, what = sparse_map(shared_data())
    gigabytes = array.nbytes / 1e9
    zeros = f"{100 * float((array == 0).mean()):.0f} % zeros"
    rows = []
    found = {}
    names = ("int8", "float8-e4m3", "int8+zero+zstd", "int4+zero+zstd", "float4-e3m0+zero+zstd", "fp16")
    for name in names:
        figures = found[name] = measure_codec(parse_codec(name), array, repeats)
        encode, decode = gigabytes / figures.encode_seconds, gigabytes / figures.decode_seconds
        eight = name in ("int8", "float8-e4m3")
        where = f"of {what} ({list(array.shape)}, {zeros}), one thread"
        rows += [
            row(f"codec.{name}.encode_gb_s", f"gigabytes of float32 encoded per second, {where}", baseline="none",
                ours=encode, unit="GB/s", bar=">= 1" if eight else ""),
            row(f"codec.{name}.decode_gb_s", f"the same, decoded, {where}", baseline="none", ours=decode, unit="GB/s",
                bar=">= 1" if eight else ""),
            row(f"codec.{name}.bytes", f"encoded bytes / float32 bytes, {where}", baseline="float32", ours=figures.encoded_bytes / array.nbytes,
                unit="x", bar="<= 0.26" if eight else "<= 0.0667" if name == "int4+zero+zstd" else "",
                note=f"largest error {figures.max_error:.4g} of values up to {float(np.abs(array).max()):.4g}, bound {figures.error_bound:.4g}"),
        ]  # fmt: skip
    for ours in ("int8+zero+zstd", "int4+zero+zstd"):
        mine = found[ours]
        for name, rival in rivals(array, mine.max_error, repeats).items():
            rows += [
                row(f"codec.{ours}.ratio_over_{name}", f"compression of {ours} / that of {name} at no larger error ({rival.max_error:.3g} against {mine.max_error:.3g})",
                    baseline=name, ours=rival.encoded_bytes / mine.encoded_bytes, unit="x", bar=">= 1"),
                row(f"codec.{ours}.speed_over_{name}", f"seconds to encode and decode, {name} / {ours}, the same", baseline=name,
                    ours=(rival.encode_seconds + rival.decode_seconds) / (mine.encode_seconds + mine.decode_seconds), unit="x", bar=">= 1"),
            ]  # fmt: skip
    return rows


def golden() -> Rows:
    """ScissionLite's published query through our planner."""
    definition = (
        "rows of ScissionLite's published DenseNet-169 query (five best cuts with transfer layer, arXiv 2105.02019) that the "
        "joint planner gives in order, with seconds to four decimals and bytes"
    )
    base = {"baseline": "published rows", "unit": "of 5", "bar": ">= 5"}
    data = shared_data()
    if data is None:
        return [
            row(
                "golden.scissionlite",
                definition,
                **base,
                ours=None,
                note="the published tables are not on this machine",
            )
        ]
    from published import answers

    right = sum(mine == theirs for mine, theirs in answers(data))
    return [row("golden.scissionlite", definition, **base, ours=right)]


def accuracy(full: bool) -> Rows:
    """What a transfer layer costs on real pictures, before and after fine-tuning."""
    data = shared_data()
    definition = "points of top-1 accuracy lost on {} by ResNet-20 with {} behind stage {}, {}"
    cifar, fashion = "1,000 test pictures of CIFAR-10 (JPEG q75)", "2,000 test pictures of Fashion-MNIST"
    if data is None or not full:
        note = "needs the pictures and the full run"
        return [
            row(
                "accuracy.tuned",
                definition.format(cifar, "a transfer layer", "2", "tuned"),
                baseline="0",
                ours=None,
                unit="points",
                note=note,
            )
        ]
    from tuning import FASHION, drops, fashion_drops

    found = [("", cifar, each) for each in drops(data)]
    if FASHION.exists():
        found += [("fashion.", fashion, each) for each in fashion_drops()]
    rows = []
    for prefix, pictures, each in found:
        for state, lost in (("inserted", each.inserted), ("tuned", each.tuned)):
            how = "as inserted" if state == "inserted" else f"after {each.epochs} epochs of fine-tuning"
            error = f"standard error of the difference {100 * each.error:.2f} points"
            rows.append(
                row(
                    f"accuracy.{prefix}{each.layer}.stage{each.stage}.{state}",
                    definition.format(pictures, each.layer, each.stage, how),
                    baseline=f"{100 * each.before:.1f} % without",
                    ours=100 * lost,
                    unit="points",
                    bar="<= 1" if state == "tuned" else "",
                    note=f"{error}; the same tuning without a layer ends at {100 * each.control:.1f} %",
                )
            )
    if not FASHION.exists():
        rows.append(row("accuracy.fashion", f"the same on {fashion}", baseline="0", ours=None, unit="points", note="dataset-fashion-mnist is not installed"))  # fmt: skip
    return rows


def end_to_end(full: bool) -> Rows:
    """Prediction, throughput and a death on three devices."""
    if os.geteuid() != 0:
        return [
            row(
                "run.measured_over_predicted",
                "see the full run",
                baseline="prediction",
                ours=None,
                unit="x",
                note=NO_ROOT,
            )
        ]
    from scenes import three_devices

    found = three_devices(12 if full else 4, 8 if full else 4)
    errors = [abs(a / b - 1) for a, b in found["latencies"]]
    where = (
        "ResNet-50 at 128 x 128 on ONNX Runtime; pi 25 %, edge 50 %, cloud 100 % of a core by kernel quota; links of 20 and "
        "50 Mbit/s by kernel shaping; real nodes over mutual TLS, the result returned"
    )
    return [
        row("run.median_error", f"median of |measured / predicted - 1| of end-to-end latency over {len(errors)} plans: {where}",
            baseline="prediction", ours=100 * statistics.median(errors), spread=[100 * min(errors), 100 * max(errors)], unit="%", bar="<= 10"),
        row("run.stream_over_bound", f"results per second of a stream / the bound that its slowest stage or link sets, each as measured in the stream, unpacking and packing included: {where}",
            baseline="slowest stage", ours=found["stream_measured"], unit="x", bar=">= 0.9", note=found["stream_plan"]),
        row("run.stream_over_predicted_bound", "the same over the bound that was predicted from profiles: what nodes spend on messages is not in them",
            baseline="slowest stage", ours=found["stream"], unit="x", bar=">= 0.9"),
        row("run.gap_after_kill", "longest seconds without a result after kill -9 of the edge's node, 20 inputs a second offered, the standby on the device loaded",
            baseline="none", ours=found["gap"], unit="s", bar="<= 2"),
        row("run.lost_after_kill", "results lost, given twice or out of order then", baseline="none",
            ours=found["lost"] + found["twice"] + (0 if found["ordered"] else 1), unit="results", bar="<= 0"),
    ]  # fmt: skip


def curve() -> Rows:
    """The transfer layer over bandwidths, beside what could embarrass it."""
    if os.geteuid() != 0:
        return [row("curve", "see the full run", baseline="", ours=None, unit="x", note=NO_ROOT)]
    from scenes import bandwidths

    rows = []
    where = "ResNet-50 at 224 x 224, pi 25 % and edge 100 % of a core, real nodes, result returned; medians of interleaved runs"
    for rate, seconds in bandwidths((5, 14, 20, 60, 200), 5).items():
        at = f"at {rate} Mbit/s"
        best = min(value for name, value in seconds.items() if name != "joint")
        said = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in seconds.items())
        rows += [
            row(f"curve.{rate}.fixed", f"latency without / with transfer layer avg2-bilinear at one fixed cut behind the first pooling, {at}: {where}",
                baseline="no transfer layer", ours=seconds["fixed"] / seconds["fixed+layer"], unit="x", note=said),
            row(f"curve.{rate}.best", f"the same, each side at its own best cut, {at} (paper: up to 2.8 x)", baseline="no transfer layer",
                ours=seconds["split"] / seconds["split+layer"], unit="x"),
            row(f"curve.{rate}.local", f"latency of the device alone / with transfer layer at its best cut, {at} (paper: up to 16 x)",
                baseline="local", ours=seconds["local"] / seconds["split+layer"], unit="x"),
            row(f"curve.{rate}.joint", f"measured latency of the plan that the joint planner chose / least of all the other rows, {at}",
                baseline="best of all", ours=seconds["joint"] / best, unit="x", bar="<= 1.05"),
        ]  # fmt: skip
    return rows


if __name__ == "__main__":
    print(json.dumps(run("--full" in sys.argv), indent=1))
