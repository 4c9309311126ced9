"""An emulated fleet with a node on every device but the first, and a driver there. Needs root."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeward.fleet.emulate import EmulatedFleet
from edgeward.fleet.fleet import Device, Fleet, Link
from edgeward.plan.plan import Plan
from edgeward.profile.file import load_profile
from edgeward.profile.profile import Profile
from edgeward.wire.certificates import make_authority, make_certificate

PORT = 7447
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def fleet_of(shares: dict[str, str], links: dict[tuple[str, str], str]) -> Fleet:
    tiers = ("device", "edge", "cloud")
    devices = tuple(Device(name=n, tier=tier, compute=share) for tier, (n, share) in zip(tiers, shares.items()))  # noqa: B905
    return Fleet(
        name="bench-split", devices=devices, links=tuple(Link(between=k, bandwidth=v) for k, v in links.items())
    )


class Emulation:
    """Profiles, nodes and the driver of a fleet; `ask` gives the driver an order."""

    def __init__(self, emulated: EmulatedFleet, folder: Path, model: str, shape: str) -> None:
        self.emulated, self.folder, self.model, self.shape = emulated, folder, model, shape
        self.fleet = emulated.fleet
        self.names = [device.name for device in self.fleet.devices]
        self.nodes: dict[str, subprocess.Popen[Any]] = {}
        self.driver: subprocess.Popen[Any] | None = None

    def profiled(self, packings: list[str], samples: Path, repeats: int) -> Profile:
        """Every device measured in turn, by the command, within its limits."""
        output = self.folder / "profile.json"
        for name in self.names:
            command = [sys.executable, "-m", "edgeward", "profile", self.model, "--input", self.shape, "--device", name]
            command += ["--repeats", str(repeats), "--samples", str(samples), "-o", str(output)]
            for packing in packings:
                command += ["--packing", packing]
            done = self.emulated.popen(
                name, command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            _, errors = done.communicate()
            if done.returncode:
                raise RuntimeError(errors.decode())
        return load_profile(output)

    def start(self, profile: Profile, plan: Plan, image: Path) -> None:
        certs = self.folder / "certs"
        make_authority(certs)
        addresses = {}
        for target in self.names:
            others = [one for one in self.names if one != target and self.fleet.link(one, target) is not None]
            seen = {one: self.emulated.address_of(target, seen_from=one) for one in others}
            make_certificate(certs, target, sorted({*seen.values(), "127.0.0.1"}))
            addresses |= {f"{one}->{target}": f"tcp/{address}:{PORT}" for one, address in seen.items()}
        for name in self.names[1:]:
            self.start_node(name)
        self.driver = self.emulated.popen(
            self.names[0], [sys.executable, str(Path(__file__).with_name("driver.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        )  # fmt: skip
        file = self.folder / "driver-profile.json"
        file.write_text(profile.model_dump_json())
        self.tell(
            {
                "fleet": self.fleet.model_dump(mode="json"), "profile": str(file), "addresses": addresses,
                "certs": str(certs), "plan": plan.model_dump(mode="json"), "shape": self.shape, "image": str(image),
            }
        )  # fmt: skip

    def start_node(self, name: str) -> None:
        command = [sys.executable, "-m", "edgeward", "node", "--name", name, "--listen", f"tcp/0.0.0.0:{PORT}"]
        self.nodes[name] = self.emulated.popen(
            name, [*command, "--certs", str(self.folder / "certs")], env=ENVIRONMENT, stderr=subprocess.DEVNULL
        )

    def ask(self, do: str, **order: Any) -> Any:
        return self.tell({"do": do, **order})

    def tell(self, record: dict[str, Any]) -> Any:
        assert self.driver is not None and self.driver.stdin is not None and self.driver.stdout is not None
        self.driver.stdin.write(json.dumps(record) + "\n")
        self.driver.stdin.flush()
        line = self.driver.stdout.readline()
        if not line:
            raise RuntimeError(f"the driver ended with code {self.driver.wait()}")
        return json.loads(line)

    def deploy(self, plans: list[Plan]) -> None:
        """Have the stages of all plans in place, over wide links: what a deployment sends is not what is measured."""
        self.set_links(1e9)
        for plan in plans:
            self.ask("prepare", plan=plan.model_dump(mode="json"))
        self.set_links(None)

    def set_links(self, bandwidth: float | None) -> None:
        """All links at a bandwidth, or at the fleet's own."""
        for link in self.fleet.links:
            for source, target in (link.ends, link.ends[::-1]):
                self.emulated.set_bandwidth(source, target, bandwidth or link.bandwidth)

    def measured_fleet(self) -> Fleet:
        """The fleet with what messages really get of its links: rate and cost of each, beside headers and encryption."""
        fleet, source = self.fleet, self.names[0]
        shares: list[float] = []
        for name, seconds in self.ask("links").items():
            small, large = (seconds[str(size)] for size in (16_384, 262_144))
            rate = 8 * (262_144 - 16_384) / (large - small)
            link = fleet.link(source, name)
            assert link is not None
            shares.append(rate / link.bandwidth)
            fleet = changed(fleet, source, name, rate, max(small - 8 * 16_384 / rate, 0.0))
        for link in self.fleet.links:
            if source not in link.ends:  # cannot be probed from here; loses to headers what the others do
                overhead = fleet.link(source, link.ends[1])
                assert overhead is not None
                fleet = changed(fleet, *link.ends, link.bandwidth * min(shares), overhead.overhead)
        return fleet

    def close(self) -> None:
        for process in [*self.nodes.values(), *([self.driver] if self.driver else [])]:
            process.kill()
            process.wait()


def changed(fleet: Fleet, source: str, target: str, rate: float, overhead: float) -> Fleet:
    link = fleet.link(source, target)
    assert link is not None
    new = link.model_copy(update={"bandwidth": rate, "overhead": overhead})
    return fleet.model_copy(update={"links": tuple(new if one is link else one for one in fleet.links)})


@contextlib.contextmanager
def emulation(fleet: Fleet, model: str, shape: str) -> Iterator[Emulation]:
    with tempfile.TemporaryDirectory() as folder, EmulatedFleet(fleet, mode="kernel") as emulated:
        running = Emulation(emulated, Path(folder), model, shape)
        try:
            yield running
        finally:
            running.close()
