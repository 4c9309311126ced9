"""Scission's published numbers as a profile and a fleet."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.plan import Plan
from edgeward.profile.profile import BlockCost, DeviceTimes, Profile

MODELS = ("vgg19", "resnet50", "mobilenetv2")
NETWORKS = ("3g", "wired")


def read(folder: pathlib.Path, name: str) -> Any:
    return json.loads((folder / "golden" / "scission" / f"{name}.json").read_text())


def profile(folder: pathlib.Path, model: str) -> Profile:
    table = read(folder, model)
    blocks = table["blocks"]
    return Profile(
        model=model,
        fingerprint=model,
        input_bytes=table["default_input_upload_bytes"],
        blocks=tuple(
            BlockCost(name=b["cut_name"], output_bytes=b["output_bytes"], layers=(b["first_layer"], b["last_layer"]))
            for b in blocks
        ),
        times={name: DeviceTimes(seconds=tuple(b["seconds"][name] for b in blocks)) for name in blocks[0]["seconds"]},
    )


def fleet(folder: pathlib.Path, network: str) -> Fleet:
    machines, links = read(folder, "machines"), read(folder, "networks")["networks"][network]
    return Fleet(
        name=network,
        devices=tuple(Device(name=name, tier=machine["tier"]) for name, machine in machines.items()),
        links=tuple(
            Link(
                source=link["source"],
                target=link["destination"],
                bandwidth=round(link["bandwidth_mbit_s"] * 125000) * 8,
                latency=link["ping_ms"] / 1000,
            )
            for link in links
        ),
        source="raspi4",
    )


def layers(plan: Plan, profile: Profile) -> list[list[Any]]:
    """The stages in the table's layer numbers."""
    blocks = profile.blocks
    return [[s.device, blocks[s.first].layers[0], blocks[s.last].layers[1]] for s in plan.stages]
