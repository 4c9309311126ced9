"""Benchmark of tracing, profiling and planning: `edgeward bench plan`.

Counted against published tables and brute force; timed on this machine; predicted and really run on an emulated fleet.
"""

from __future__ import annotations

import functools
import importlib.util
import random
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness import cpu_seconds, row, run_sections, shared_data  # noqa: E402

Rows = list[dict[str, Any]]


def run(full: bool = False) -> dict[str, Any]:
    """All sections; quick takes fewer instances, networks and plans."""
    sections = {
        "golden": golden,
        "exactness": functools.partial(exactness, 1000 if full else 200),
        "scale": functools.partial(scale, 3 if full else 1),
        "queries": functools.partial(queries, full),
        "overhead": functools.partial(overhead, full),
        "emulated fleet, ONNX Runtime": functools.partial(emulated, "onnxruntime", full),
    }
    if full:
        sections["emulated fleet, torch"] = functools.partial(emulated, "torch", full)
    return run_sections("plan", full, sections)


def golden() -> Rows:
    """Scission's published tables."""
    data = shared_data()
    total = 5 + 6 * 4
    definition = (
        f"answers equal to the published ones in seconds (four decimals), bytes and layers, of {total}: the five rows of "
        "the vgg19 query, and the best plan, best with the device first, best split, and best over three tiers, for three "
        "models on two networks (Scission, UCC 2020, arXiv 2008.03523; published tables of its repository)"
    )
    base = {"baseline": "published tables", "unit": f"of {total}", "bar": f">= {total}"}
    if data is None:
        return [
            row("golden.answers", definition, **base, ours=None, note="the published tables are not on this machine")
        ]
    from edgeward.plan.constraints import Constraints
    from edgeward.plan.planner import Planner

    tables = oracle("plan_golden")
    questions = {
        "best_unconstrained": (),
        "best_device_first": ("block 0 on device",),
        "best_device_first_split": ("block 0 on device", "split"),
        "best_three_tier": ("use device", "use edge", "use cloud"),
    }
    expected = tables.read(data, "expected")
    cases = [
        (query["model"], query["network"], ("use device", "layer 10 on edge", "layer 16 on cloud"), query["rows"])
        for query in [expected["readme_query"]]
    ]
    cases += [
        (model, network, texts, [expected["models"][model][network][name]])
        for model in tables.MODELS
        for network in tables.NETWORKS
        for name, texts in questions.items()
    ]
    right = 0
    for model, network, texts, rows in cases:
        profile = tables.profile(data, model)
        plans = Planner(profile, tables.fleet(data, network)).best(constraints=Constraints.parse(*texts), top=len(rows))
        for plan, wanted in zip(plans, rows, strict=True):
            same = f"{plan.latency:.4f}" == wanted["seconds_4dp"] and plan.bytes == wanted["sent_bytes"]
            right += same and tables.layers(plan, profile) == wanted["plan"]
    return [row("golden.answers", definition, **base, ours=right)]


def exactness(instances: int) -> Rows:
    """The solvers against every assignment there is."""
    from edgeward.errors import PlanError
    from edgeward.plan.constraints import Constraints
    from edgeward.plan.objective import Objective
    from edgeward.plan.planner import plan

    brute = oracle("plan_brute")
    wrong = 0
    for seed in range(100_000, 100_000 + instances):
        profile, fleet = brute.instance(seed)
        rng = random.Random(seed)
        objective = Objective(("latency", "throughput")[seed % 2], return_result=rng.random() < 0.3)
        rules = brute.random_rules(rng, profile, fleet)
        wanted = sorted(getattr(one, objective.kind) for one in brute.feasible(profile, fleet, objective, rules))[:5]
        try:
            costs = [one.cost for one in plan(profile, fleet, objective, Constraints(rules), 5)]
        except PlanError:
            costs = []
        close = len(costs) == len(wanted) and all(
            abs(a - b) <= 1e-12 * max(a, b, 1e-3) for a, b in zip(costs, wanted, strict=True)
        )
        wrong += not close
    definition = (
        f"random instances, of {instances}, whose five best costs differ from those of every assignment enumerated: up to 5 "
        "blocks and 4 devices, up to 4 constraints, private zones, memory, missing links; latency and throughput in turn"
    )
    return [row("exactness.wrong", definition, baseline="brute force", ours=wrong, unit="instances", bar="<= 0")]


def scale(repeats: int) -> Rows:
    """A thousand blocks on fifty devices."""
    from edgeward.fleet.fleet import Device, Fleet, Link
    from edgeward.plan.planner import Planner
    from edgeward.profile.profile import BlockCost, DeviceTimes, Profile

    rng = random.Random(0)
    names = [f"d{number}" for number in range(50)]
    links = tuple(
        Link(source=a, target=b, bandwidth=rng.uniform(1e6, 1e9), latency=rng.uniform(0, 0.02))
        for a in names
        for b in names
        if a != b
    )
    fleet = Fleet(devices=tuple(Device(name=name, tier="edge") for name in names), links=links)
    blocks = tuple(BlockCost(name=f"b{index}", output_bytes=rng.randint(1000, 1_000_000)) for index in range(1000))
    times = {name: DeviceTimes(seconds=tuple(rng.uniform(1e-4, 1e-2) for _ in blocks)) for name in names}
    planner = Planner(Profile(model="m", fingerprint="f", input_bytes=100_000, blocks=blocks, times=times), fleet)
    taken = [cpu_seconds(lambda: planner.best(top=10)) for _ in range(repeats)]
    planner.best(top=1)
    again = [
        cpu_seconds(lambda n=n: planner.with_link("d0", "d1", bandwidth=1e6 * (n + 1)).best(top=1))
        for n in range(repeats)
    ]
    return [
        row(
            "scale.seconds",
            "processor seconds for the ten best plans by latency of 1,000 blocks on 50 devices, every one linked to every other, costs prepared",
            baseline="none",
            ours=statistics.median(taken),
            spread=[min(taken), max(taken)],
            unit="s",
            bar="<= 1",
        ),
        row(
            "scale.replan_seconds",
            "the same, the best plan after one link changed",
            baseline="none",
            ours=statistics.median(again),
            spread=[min(again), max(again)],
            unit="s",
        ),
    ]


QUERIES = (
    (),
    ("block 0 on device",),
    ("block 0 on device", "split"),
    ("use device", "use edge", "use cloud"),
    ("avoid cloud",),
    ("use edge1", "avoid cloud0"),
    ("device->* <= 500 kB",),
    ("edge->* <= 500 kB", "use device"),
    ("device <= 20 %",),
    ("block 0 on device", "edge <= 50 %", "cloud <= 50 %"),
    ("block 0 on device", "device->* <= 2 MB", "edge <= 30 ms", "no revisit"),
)


def queries(full: bool) -> Rows:
    """The study's eighteen networks on one device, two edge boxes and two clouds."""
    import torch

    from edgeward.errors import PlanError
    from edgeward.fleet.fleet import Device, Fleet, Link
    from edgeward.graph.chain import CutOptions, cut
    from edgeward.plan.constraints import Constraints
    from edgeward.plan.objective import Objective
    from edgeward.plan.planner import Planner
    from edgeward.profile.profile import DeviceTimes, Profile
    from edgeward.zoo.reference import STUDY, build

    speeds = {"device0": 5e9, "edge0": 2e10, "edge1": 3e10, "cloud0": 1e11, "cloud1": 5e11}
    devices = tuple(Device(name=name, tier=name[:-1], power=5.0) for name in speeds)  # type: ignore[arg-type]
    ways = [
        (a, b)
        for a in speeds
        for b in speeds
        if (a[:-1], b[:-1]) in (("device", "edge"), ("device", "cloud"), ("edge", "cloud"))
    ]
    fleet = Fleet(
        devices=devices,
        links=tuple(Link(source=a, target=b, bandwidth=20e6, latency=0.02, energy=1e-7) for a, b in ways),
    )
    taken: list[float] = []
    worst, blocks = "", []
    for name in STUDY if full else STUDY[:4]:
        chain = cut(build(name), torch.rand(1, 3, 96, 96), options=CutOptions("op"))
        blocks.append(len(chain))
        times = {
            device: DeviceTimes(
                seconds=tuple(2e-5 + cost.macs / speed + cost.output_bytes / 1e10 for cost in chain.costs)
            )
            for device, speed in speeds.items()
        }
        profile = Profile(
            model=name, fingerprint=chain.fingerprint, input_bytes=chain.input_bytes, blocks=chain.costs, times=times
        )
        planner = Planner(profile, fleet)
        planner.best(top=1)
        for kind in ("latency", "throughput", "energy", "bytes"):
            for texts in QUERIES:
                ask = functools.partial(planner.best, Objective(kind), Constraints.parse(*texts), 5)  # type: ignore[arg-type]
                try:
                    taken.append(statistics.median(seconds(ask) for _ in range(3)))
                except PlanError:
                    continue
                if taken[-1] == max(taken):
                    worst = f"{name}, {kind}, {'; '.join(texts) or 'no constraints'}"
    return [
        row(
            "queries.slowest_ms",
            f"the slowest of {len(taken)} answers (five best plans, median of three askings): {len(blocks)} networks of the study, cut wherever possible "
            f"({min(blocks)} to {max(blocks)} blocks), on five machines of three tiers; {len(QUERIES)} sets of constraints, four objectives",
            baseline="Scission reports under 50 ms over its stored rows",
            ours=1000 * max(taken),
            unit="ms",
            bar="<= 50",
            note=f"median {1000 * statistics.median(taken):.1f} ms, 95 % under {1000 * sorted(taken)[int(0.95 * len(taken))]:.1f} ms; slowest: {worst}",
        )
    ]


def overhead(full: bool) -> Rows:
    """Tracing and profiling ResNet-50."""
    import torch

    from edgeward.graph.chain import cut
    from edgeward.profile.profiler import ProfileOptions, profile_chain
    from edgeward.zoo.reference import build

    torch.set_num_threads(1)
    model, example = build("resnet50"), torch.rand(1, 3, 224, 224)
    start = time.perf_counter()
    chain = cut(model, example)
    cutting = time.perf_counter() - start
    rows = [
        row(
            "resnet50.cut_seconds",
            "seconds to trace ResNet-50 (224 x 224), cut it, cost its blocks and check that they repeat it bit for bit",
            baseline="none",
            ours=cutting,
            unit="s",
            bar="<= 10",
        )
    ]
    for backend in ("onnxruntime", "torch") if full else ("onnxruntime",):
        start = time.perf_counter()
        times = profile_chain(chain, ProfileOptions(backend))
        profiling = time.perf_counter() - start
        gap = sum(times.seconds) / (times.whole or 1) - 1
        predicted = times.segment(0, len(chain) - 1) / (times.whole or 1) - 1
        rows.append(
            row(
                f"resnet50.profile_seconds_{backend}",
                f"seconds of a full profile of ResNet-50 with {backend}, 10 rounds over {len(chain)} blocks",
                baseline="none",
                ours=profiling,
                unit="s",
                bar="<= 60",
                note=f"sum of the blocks {100 * gap:+.1f} % of the whole; corrected for joining {100 * predicted:+.1f} %",
            )
        )
    return rows


def emulated(backend: str, full: bool) -> Rows:
    """Plans that really run."""
    import os

    from scipy.stats import spearmanr

    count = 20 if full else 6
    where = (
        f"ResNet-50 at 128 x 128 on {backend}; pi 25 %, edge 50 %, cloud 100 % of a core by kernel quota; links of 10 and "
        f"50 Mbit/s by kernel shaping, latencies of 2 to 10 ms added by the sender; {count} plans (five best, native, random)"
    )
    ids = (f"emulated.{backend}.median_error", f"emulated.{backend}.rank_correlation")
    texts = (
        f"median of |predicted / measured - 1| of end-to-end latency: {where}",
        f"Spearman's rank correlation of the same: {where}",
    )
    if os.geteuid() != 0:
        note = "needs root: control groups and network namespaces"
        return [
            row(name, text, baseline="real run", ours=None, unit="", note=note)
            for name, text in zip(ids, texts, strict=True)
        ]
    sys.path.insert(0, str(HERE))
    from emulation import predicted_and_measured

    found = predicted_and_measured("resnet50", 128, backend, count, repeats=5 if full else 3)
    rows, profile, fleet = found["rows"], found["profile"], found["fleet"]
    measured = [seconds for _, seconds in rows]
    errors = [abs(plan.latency / seconds - 1) for plan, seconds in rows]
    by_flops = [_with_flops(profile, fleet, plan) for plan, _ in rows]
    flop_errors = [abs(predicted / seconds - 1) for predicted, seconds in zip(by_flops, measured, strict=True)]
    chosen = measured[min(range(len(rows)), key=lambda index: rows[index][0].latency)]
    rank = float(spearmanr([plan.latency for plan, _ in rows], measured).statistic)
    return [
        row(
            ids[0],
            texts[0],
            baseline="real run",
            ours=100 * statistics.median(errors),
            spread=[100 * min(errors), 100 * max(errors)],
            unit="%",
            bar="<= 10",
            note="spread: least and largest error of one plan",
        ),
        row(
            ids[1],
            texts[1],
            baseline="real run",
            ours=rank,
            unit="",
            bar=">= 0.9",
        ),
        row(
            f"emulated.{backend}.median_error_flops",
            "the same median error when each device's time is one measured rate times multiply-accumulates: what measuring blocks is worth",
            baseline="one measured rate per device",
            ours=100 * statistics.median(flop_errors),
            spread=[100 * min(flop_errors), 100 * max(flop_errors)],
            unit="%",
        ),
        row(
            f"emulated.{backend}.chosen_over_best",
            "measured latency of the plan that is predicted fastest / least measured latency of all plans run",
            baseline="best of the plans run",
            ours=chosen / min(measured),
            unit="x",
            bar="<= 1.05",
        ),
    ]


def seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _with_flops(profile: Any, fleet: Any, plan: Any) -> float:
    from edgeward.plan.evaluate import evaluate

    total = sum(block.macs for block in profile.blocks)
    times = {
        name: one.model_copy(
            update={
                "seconds": tuple(one.whole * block.macs / total for block in profile.blocks),
                "joined": (),
                "low": (),
                "high": (),
            }
        )
        for name, one in profile.times.items()
    }
    spans = [(stage.device, stage.first, stage.last) for stage in plan.stages]
    return evaluate(profile.model_copy(update={"times": times}), fleet, spans).latency


def oracle(name: str) -> ModuleType:
    """Enumeration and published tables, kept beside the tests that rest on them."""
    spec = importlib.util.spec_from_file_location(name, HERE.parents[1] / "tests" / "plan" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
