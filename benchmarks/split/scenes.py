"""What really runs on emulated fleets: plans beside their predictions, streams, a death, and the transfer layer."""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from emulation import Emulation, emulation, fleet_of

from edgeward.fleet.fleet import Fleet
from edgeward.plan.constraints import Constraints
from edgeward.plan.evaluate import evaluate
from edgeward.plan.objective import Objective
from edgeward.plan.plan import Plan
from edgeward.plan.planner import Planner
from edgeward.profile.profile import Profile

MODEL = "resnet50"
RETURNED = Objective(return_result=True)
ANY = "any accuracy"


def picture(running: Emulation, side: int) -> Path:
    """A smooth picture in 0..1: noise would make JPEG and zstd look bad."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(9 * x + 3 * y), np.cos(5 * y * x + 2), np.sin(14 * (x - 0.4) * (y + 0.2))]
    noise = 0.03 * np.random.default_rng(0).random((3, side, side))
    file = running.folder / "picture.npy"
    np.save(file, np.clip((np.stack(waves) + 1) / 2.2 + noise, 0, 1).astype(np.float32)[None])
    return file


def three_devices(count: int, repeats: int) -> dict[str, Any]:
    """(measured, predicted) latencies of plans, a stream over its bound, and what a kill -9 costs."""
    shares = {"pi": "25 %", "edge": "50 %", "cloud": "100 %"}
    links = {("pi", "edge"): "20 Mbit/s", ("pi", "cloud"): "20 Mbit/s", ("edge", "cloud"): "50 Mbit/s"}
    with emulation(fleet_of(shares, links), MODEL, "3x128x128") as running:
        image = picture(running, 128)
        profile = running.profiled(["int8", "int8+zstd"], image, 5)
        first = best(profile, running.fleet, "block 0 on pi", "use edge", "use cloud")
        running.start(profile, first, image)
        running.set_links(1e9)
        running.ask("open", plan=dump(first))
        running.set_links(None)
        fleet = running.measured_fleet()
        plans = some_plans(profile, fleet, count)
        pipeline = Planner(profile, fleet).best(Objective("throughput"), Constraints.parse(ANY), top=1)[0]
        running.deploy([*plans, pipeline])
        latencies = []
        for plan in plans:
            taken = running.ask("run", plan=dump(plan), times=repeats + 1)["seconds"][1:]
            latencies.append((statistics.median(taken), plan.latency))
        streamed = running.ask("stream", plan=dump(pipeline), count=60)
        moments, busy = streamed["moments"], streamed["busy"]
        spacing = (moments[-1] - moments[0]) / (len(moments) - 1)
        running.set_links(1e9)
        running.ask("open", plan=dump(first), adapt=True)
        running.set_links(None)
        death = running.ask("kill", pid=running.nodes["edge"].pid, before=20, after=60)
        said = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in busy.items())
        stream = {
            "stream": pipeline.bottleneck / spacing,
            "stream_plan": f"{pipeline.describe()}; a result every {1000 * spacing:.1f} ms; medians in the stream: {said}",
            "stream_measured": max([*busy.values(), *(hop.seconds for hop in pipeline.hops)]) / spacing,
        }
        return {"latencies": latencies, **stream, **death}


def bandwidths(rates: tuple[int, ...], repeats: int) -> dict[int, dict[str, float]]:
    """Median latency of each way to run the network, by bandwidth in Mbit/s."""
    layers = [
        "avg2-bilinear",
        "avg2-bilinear/int8+zstd",
        "int8",
        "int8+zstd",
        "float4-e3m0+zero+zstd",
        "uint8",
        "jpeg90",
    ]
    fleet = fleet_of({"pi": "25 %", "edge": "100 %"}, {("pi", "edge"): "200 Mbit/s"})
    with emulation(fleet, MODEL, "3x224x224") as running:
        image = picture(running, 224)
        profile = running.profiled(layers, image, 5)
        running.start(profile, best(profile, fleet), image)
        running.set_links(1e9)
        running.ask("open", plan=dump(best(profile, fleet)))
        found = {}
        for rate in rates:
            running.set_links(1e6 * rate)
            plans = ways(profile, running.measured_fleet())
            running.set_links(1e9)
            for plan in plans.values():
                running.ask("prepare", plan=dump(plan))
            running.set_links(1e6 * rate)
            for plan in plans.values():  # warms
                running.ask("run", plan=dump(plan), times=1)
            taken: dict[str, list[float]] = {name: [] for name in plans}
            for _ in range(repeats):
                for name, plan in plans.items():
                    taken[name] += running.ask("run", plan=dump(plan), times=1)["seconds"]
            found[rate] = {name: statistics.median(values) for name, values in taken.items()}
        return found


def ways(profile: Profile, fleet: Fleet) -> dict[str, Plan]:
    """Each row of the table as a plan at its own best cut; "fixed" cuts behind the first pooling."""
    last = len(profile.blocks) - 1
    pool = next(index for index, block in enumerate(profile.blocks) if "pool" in block.name)
    halves = [("pi", 0, pool), ("edge", pool + 1, last)]
    split = ("block 0 on pi", "use edge", ANY)
    return {
        "local": evaluate(profile, fleet, [("pi", 0, last)], RETURNED),
        "fixed": evaluate(profile, fleet, halves, RETURNED),
        "fixed+layer": evaluate(profile, fleet, halves, RETURNED, ("avg2-bilinear", "identity")),
        "split": best(profile, fleet, *split, "packing identity"),
        "split+layer": best(profile, fleet, *split, "packing avg2-bilinear|identity"),
        "split+int8": best(profile, fleet, *split, "packing int8+zstd|identity"),
        "picture": evaluate(profile, fleet, [("edge", 0, last)], RETURNED),
        "picture uint8": evaluate(profile, fleet, [("edge", 0, last)], RETURNED, ("uint8", "identity")),
        "picture jpeg": evaluate(profile, fleet, [("edge", 0, last)], RETURNED, ("jpeg90", "identity")),
        "joint": best(profile, fleet, ANY),
    }


def best(profile: Profile, fleet: Fleet, *texts: str) -> Plan:
    return Planner(profile, fleet).best(RETURNED, Constraints.parse(*texts), top=1)[0]


def some_plans(profile: Profile, fleet: Fleet, count: int) -> list[Plan]:
    """The best ones with and without packing, and random ones."""
    chosen = {}
    for texts in ((), ("packing identity",), (ANY,), ("block 0 on pi", "split", ANY), ("block 0 on pi", "split")):
        plan = best(profile, fleet, *texts)
        chosen.setdefault(plan.describe(), plan)
    draw, last = random.Random(0), len(profile.blocks) - 1
    while len(chosen) < count:
        order = draw.choice((["pi", "edge"], ["pi", "cloud"], ["pi", "edge", "cloud"], ["edge", "cloud"]))
        edges = sorted(draw.sample(range(last), len(order) - 1))
        spans = [(n, a, b) for n, a, b in zip(order, [0, *(e + 1 for e in edges)], [*edges, last], strict=True)]
        bare = evaluate(profile, fleet, spans, RETURNED)
        packings = tuple(draw.choice(("identity", "int8", "int8+zstd")) for _ in bare.hops)
        plan = evaluate(profile, fleet, spans, RETURNED, packings)
        chosen.setdefault(plan.describe(), plan)
    return list(chosen.values())[:count]


def dump(plan: Plan) -> dict[str, Any]:
    record: dict[str, Any] = plan.model_dump(mode="json")
    return record
