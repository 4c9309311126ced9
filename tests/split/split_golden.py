"""ScissionLite's published DenseNet-169 tables (arXiv 2105.02019) as a profile with its transfer layer as a packing."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.constraints import Constraints
from edgeward.plan.plan import Plan
from edgeward.plan.planner import Planner
from edgeward.profile.packing import PackingCosts, PackingTimes
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile

LAYER = "max2-nearest"


def read(folder: pathlib.Path, name: str) -> Any:
    return json.loads((folder / "golden" / "scissionlite" / f"{name}.json").read_text())


def profile(folder: pathlib.Path) -> Profile:
    """Times in seconds; packing is down-sampling and conversion, unpacking conversion and up-sampling."""
    table = read(folder, "densenet169")
    blocks = table["blocks"]

    def together(block: Any, machine: str, *names: str) -> float | None:
        parts = [block[name][machine] for name in names]
        return None if None in parts or block["transfer_layer_bytes"] is None else sum(parts)

    def times(machine: str) -> DeviceTimes:
        pack = [together(block, machine, "down_seconds", "convert_seconds") for block in blocks]
        unpack = [together(block, machine, "convert_seconds", "up_seconds") for block in blocks]
        packing = PackingTimes(pack=(None, *pack), unpack=(None, *unpack))
        return DeviceTimes(seconds=tuple(b["seconds"][machine] for b in blocks), packings={LAYER: packing})

    sizes = (None, *(block["transfer_layer_bytes"] for block in blocks))
    return Profile(
        model="densenet169",
        fingerprint="densenet169",
        input_bytes=table["default_input_upload_bytes"],
        blocks=tuple(
            BlockCost(name=b["cut_name"], output_bytes=b["output_bytes"], layers=(b["first_layer"], b["last_layer"]))
            for b in blocks
        ),
        times={machine: times(machine) for machine in table["machines"]},
        packings={LAYER: PackingCosts(bytes=sizes, drop=tuple(None for _ in sizes))},
    )


def fleet(folder: pathlib.Path) -> Fleet:
    table = read(folder, "densenet169")
    return Fleet(
        devices=tuple(Device(name=name, tier=machine["tier"]) for name, machine in table["machines"].items()),
        links=tuple(
            Link(
                source=link["source"],
                target=link["destination"],
                bandwidth=8 * round(link["bandwidth_mbit_s"] * 125_000),
                latency=link["ping_ms"] / 1000,
            )
            for link in table["links"]
        ),
    )


def answers(folder: pathlib.Path) -> list[tuple[tuple[str, int, int], tuple[str, int, int]]]:
    """Seconds to four decimals, bytes and last layer before the cut: of the planner's five best, and as published."""
    query = read(folder, "expected")["readme_query"]
    asked = ("block 0 on tx2_gpu", "use ampere", "avoid titan_cpu", f"packing {LAYER}", "any accuracy")
    known = profile(folder)
    plans = Planner(known, fleet(folder)).best(constraints=Constraints.parse(*asked), top=5)
    theirs = [(one["seconds_4dp"], one["sent_bytes"], one["cut_after_layer"]) for one in query["rows"]]
    return list(zip([_row(plan, known) for plan in plans], theirs, strict=True))


def _row(plan: Plan, known: Profile) -> tuple[str, int, int]:
    layers = known.blocks[plan.stages[0].last].layers
    assert layers is not None
    return f"{plan.latency:.4f}", plan.bytes, layers[1]
