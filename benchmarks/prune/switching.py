"""Changing the variant that runs: seconds, bytes and lost requests of each store, beside reading it from disk.

    rows = switching(full=False)               # for benchmarks/prune/bench.py
    python benchmarks/prune/switching.py --full

Six VGG-16 variants that are slices of one another (channels of the smaller ones are the first of the larger ones'), so
that every store can keep them. Weights are random: nothing here depends on their values.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from harness import interleaved, row  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from edgeward.prune.reload import Reload, ReloadSession  # noqa: E402
from edgeward.prune.stores import VariantStore, weight_bytes  # noqa: E402
from edgeward.prune.superset import Superset, tensors_of  # noqa: E402
from edgeward.prune.switch import Switcher, open_store  # noqa: E402

Rows = list[dict[str, Any]]
WIDTHS = (0.62, 0.60, 0.58, 0.56, 0.54, 0.52)
PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
EXAMPLE = np.zeros((1, 3, 32, 32), np.float32)
STORES = {
    "resident": "ONNX Runtime, all sessions held",
    "borrowed": "ONNX Runtime, weights borrowed from the memory-mapped store",
    "superset": "torch, views of one superset",
}
DISK = {
    "torch.load": "torch, torch.load(weights_only) into a module made without weights",
    "safetensors": "torch, safetensors into a module made without weights",
    "load_state_dict": "torch, module rebuilt, torch.load and load_state_dict",
    "session": "ONNX Runtime, a new plain session from the file",
}
RIVALS = {"borrowed": "session", "superset": "torch.load", "resident": "session"}
APART = {"borrowed": "resident", "superset": "apart"}
"""The store that holds all variants apart in the same runtime."""


def switching(full: bool, scale: float = 1.0) -> Rows:
    """All rows. scale: of the widths, for a tiny version."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder / "tiny", 0.05)
        largest = prepare(folder, scale)
        return [*speed(folder, 150 if full else 8, largest), *load(folder, 120 if full else 12), *memory(folder)]


def speed(folder: Path, rounds: int, largest: float) -> Rows:
    """Seconds of a change, all stores and baselines in one interleaved run."""
    switchers = {kind: Switcher(store(kind, folder), names()[0], EXAMPLE) for kind in (*STORES, *DISK)}
    turns: dict[str, int] = dict.fromkeys(switchers, 0)
    parts: dict[str, list[tuple[float, float]]] = {kind: [] for kind in switchers}

    def change(kind: str) -> float:
        turns[kind] += 1
        switched = switchers[kind].switch(names()[turns[kind] % len(names())])
        parts[kind].append((switched.opening, switched.warming))
        return switched.seconds

    runs: dict[str, Callable[[], float]] = {kind: functools.partial(change, kind) for kind in switchers}
    interleaved(runs, len(names()))  # every variant once, untimed
    gc.disable()
    taken = interleaved(runs, rounds)
    gc.enable()
    rows = []
    what = f"from the call until new requests run on the variant, one warm-up inference included, {rounds} changes, variants of up to {largest:.1f} MB, files in the page cache"
    for kind, words in (STORES | DISK).items():
        seconds, (opening, warming) = taken[kind], np.median(parts[kind][-rounds:], axis=0)
        note = f"{words}; opening {1000 * opening:.3f} ms, inference {1000 * warming:.2f} ms, p99 of opening {1000 * p99([one for one, _ in parts[kind][-rounds:]]):.2f} ms"
        rows += [
            row(f"switch.{kind}.p50_ms", f"median milliseconds {what}", baseline="none", ours=1000 * statistics.median(seconds), unit="ms",
                spread=[1000 * min(seconds), 1000 * max(seconds)], note=note),
            row(f"switch.{kind}.p99_ms", f"99th percentile of the same ({rounds} changes)", baseline="none", ours=1000 * p99(seconds), unit="ms",
                bar="<= 10" if kind in STORES else ""),
        ]  # fmt: skip
    for kind, rival in RIVALS.items():
        for disk in (
            rival,
            *(other for other in DISK if other != rival and (rival == "torch.load") == (other != "session")),
        ):
            bar = ">= 11.9" if disk == rival else ""
            opening = {one: statistics.median(part[0] for part in parts[one][-rounds:]) for one in (kind, disk)}
            rows += [
                row(f"switch.{kind}.over.{disk}", f"median seconds of a change until the variant can run, reload from disk ({disk}, page cache warm) / {kind}",
                    baseline=disk, ours=opening[disk] / opening[kind], unit="x", bar=bar),
                row(f"switch.{kind}.first_result.over.{disk}", f"the same with the first inference on the variant on both sides, {disk} / {kind}",
                    baseline=disk, ours=statistics.median(taken[disk]) / statistics.median(taken[kind]), unit="x",
                    note=f"bound: a first result takes at least {kind}'s inference, so at most {statistics.median(taken[disk]) / statistics.median(part[1] for part in parts[kind][-rounds:]):.1f} x"),
            ]  # fmt: skip
    return rows


def load(folder: Path, changes: int) -> Rows:
    """Requests of two threads while variants change."""
    rows = []
    for kind in STORES:
        answered, failed = [0], [0]
        seconds: list[float] = []
        done = threading.Event()
        with Switcher(store(kind, folder), names()[0], EXAMPLE) as switcher:

            def ask(
                switcher: Switcher = switcher,
                answered: list[int] = answered,
                failed: list[int] = failed,
                done: threading.Event = done,
            ) -> None:
                while not done.is_set():
                    try:
                        outputs = switcher.run(EXAMPLE)
                        answered[0] += outputs[0].shape == (1, 10)
                    except Exception:
                        failed[0] += 1

            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
            seconds += [switcher.switch(names()[number % len(names())]).seconds for number in range(1, changes + 1)]
            done.set()
            for thread in threads:
                thread.join()
        rows.append(
            row(f"switch.{kind}.dropped", f"requests of two threads that failed during {changes} changes one after another", baseline="none", ours=failed[0],
                unit="requests", bar="<= 0", note=f"{answered[0]} answered; a change then took {1000 * statistics.median(seconds):.1f} ms (p99 {1000 * p99(seconds):.1f}), both cores busy")
        )  # fmt: skip
    return rows


def memory(folder: Path) -> Rows:
    """Bytes, counted and as the system counts them, each store in a process of its own."""
    found = {kind: measured(kind, folder) for kind in ("apart", *STORES)}
    rows = []
    for kind, apart in APART.items():
        bound = found["apart"]["sum"] / found["apart"]["largest"]
        many, few = found[apart], found[kind]
        note = f"bound: no store can hold less than the largest variant, so at most {bound:.2f} x"
        rows += [
            row(f"memory.{kind}.counted", f"bytes of weights, all six variants apart ({apart}) / {kind}, counted, the largest one active", baseline=apart,
                ours=many["counted"] / few["counted"], unit="x", bar=">= 3.8", note=note),
            row(f"memory.{kind}.pss", f"proportional set size that a fresh process gains by the store, every variant run once, the largest one active: {apart} / {kind}",
                baseline=apart, ours=many["pss"] / few["pss"], unit="x", bar=">= 3.8",
                note=f"{many['pss'] / 1e6:.0f} MB against {few['pss'] / 1e6:.0f} MB, of which weights {many['counted'] / 1e6:.0f} and {few['counted'] / 1e6:.0f}; {note}"),
        ]  # fmt: skip
    return rows


def measured(kind: str, folder: Path) -> dict[str, float]:
    """What a fresh process says of one store."""
    command = [sys.executable, __file__, "--memory", kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def fresh(kind: str, folder: Path) -> None:
    """In that process: tiny variants first, so that code which is mapped and read at first use does not count."""
    torch.set_num_threads(1)
    exercised(kind, folder / "tiny").close()
    before = pss()
    with exercised(kind, folder) as switcher:
        figures: dict[str, float] = {"pss": pss() - before, "counted": switcher.resident_bytes()}
    sizes = [weight_bytes(folder / f"{name}.onnx") for name in names()]
    print(json.dumps(figures | {"sum": sum(sizes), "largest": max(sizes)}))


def exercised(kind: str, folder: Path) -> Switcher:
    """A switcher on which every variant has run once, the largest one last."""
    switcher = Switcher(store(kind, folder), names()[0], EXAMPLE)
    for name in (*names()[1:], names()[0]):
        switcher.switch(name)
    return switcher


def store(kind: str, folder: Path) -> VariantStore:
    files = {name: folder / f"{name}.onnx" for name in names()}
    if kind in ("resident", "borrowed"):
        return open_store(kind, files, folder / "cache")  # type: ignore[arg-type]
    if kind == "session":
        return ReloadSession(files)
    widths = json.loads((folder / "widths.json").read_text())
    factories = {name: functools.partial(vgg, widths[name]) for name in names()}
    if kind in ("superset", "apart"):
        modules = {name: make() for name, make in factories.items()}
        for name, module in modules.items():
            module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        return Superset.build(modules) if kind == "superset" else Superset(modules)
    suffix = "safetensors" if kind == "safetensors" else "pt"
    return Reload(factories, {name: folder / f"{name}.{suffix}" for name in names()}, kind)  # type: ignore[arg-type]


def names() -> list[str]:
    return [f"w{round(100 * width)}" for width in WIDTHS]


def prepare(folder: Path, scale: float) -> float:
    """Write every variant as ONNX, safetensors and state_dict; megabytes of the largest."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    widths = {name: scale * width for name, width in zip(names(), WIDTHS, strict=True)}
    (folder / "widths.json").write_text(json.dumps(widths))
    largest = vgg(widths[names()[0]])
    wide = largest.state_dict()
    for name, width in widths.items():
        net = vgg(width)
        for key, tensor in net.state_dict().items():
            if tensor.dim() > 1:
                tensor.copy_(wide[key][tuple(slice(size) for size in tensor.shape)])
        export(net, folder / f"{name}.onnx")
        save_file(net.state_dict(), folder / f"{name}.safetensors")
        torch.save(net.state_dict(), folder / f"{name}.pt")
    store("borrowed", folder)  # packed once per machine, before anything is timed
    return sum(tensor.nbytes for _, tensor in tensors_of(largest)) / 1e6


def vgg(width: float) -> nn.Module:
    """VGG-16 for 32 x 32 pictures (Simonyan and Zisserman, ICLR 2015, as CIFAR papers use it), channels times `width`."""
    layers: list[nn.Module] = []
    inputs = 3
    for item in PLAN:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
            continue
        outputs = max(round(item * width), 1)
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs, 10)).eval()


def export(net: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.from_numpy(EXAMPLE),), path, dynamo=False, input_names=["image"], output_names=["logits"],
                          dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}})  # fmt: skip


def pss() -> int:
    """Proportional set size of this process in bytes, without what the allocator keeps of memory that was let go."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    text = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])


def p99(values: list[float]) -> float:
    return float(np.quantile(values, 0.99, method="higher"))


if __name__ == "__main__":
    if "--memory" in sys.argv:
        fresh(sys.argv[-2], Path(sys.argv[-1]))
    else:
        print(json.dumps(switching("--full" in sys.argv, 0.15 if "--tiny" in sys.argv else 1.0), indent=1))
