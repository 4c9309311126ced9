"""What a host does with an order: take a stage, run it on tensors, let it go, say how it is.

    server = StageServer("edge", memory=512 << 20)
    server.handle(package.to_message())
    result = server.handle(Message("run", {"route": [{"host": "edge", "stage": package.stage_id}]}, parts))

Transports carry orders here and answers back; nothing here knows which. An order that fails is answered with an
error, never with an exception, so that one bad order does not end a host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeward import __version__
from edgeward.errors import EdgewardError, HostError, WireError
from edgeward.graph.stage import Stage
from edgeward.units import format_bytes
from edgeward.wire.codecs import CODECS
from edgeward.wire.header import Limits
from edgeward.wire.messages import Message
from edgeward.wire.package import Package
from edgeward.wire.packing import Packing, unpack

__all__ = ["StageServer", "error_reply"]


@dataclass(frozen=True)
class _Deployed:
    package: str
    bytes: int
    run: Stage


class StageServer:
    """Stages and the orders about them. One thread at a time.

    memory: bytes that deployed stages may take together (weights and working memory), None for no limit.
    """

    def __init__(
        self,
        name: str,
        memory: int | None = None,
        threads: int = 1,
        limits: Limits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.memory, self.threads = name, memory, threads
        self.limits = limits or Limits()
        self.now = now
        self._stages: dict[str, _Deployed] = {}

    def handle(self, order: Message) -> Message:
        """The answer: of kind "result", or "error" with the reason; a "run" that goes on elsewhere stays a "run"."""
        try:
            match order.kind:
                case "run":
                    return self._run(order)
                case "deploy":
                    return self._deploy(order)
                case "withdraw":
                    self._stages.pop(str(order.meta.get("stage")), None)
                    return _answer(order, {})
                case "describe":
                    return _answer(order, self.describe())
                case "ping":
                    return _answer(order, {"now": self.now()})
            raise WireError(f"host {self.name!r} knows no order {order.kind!r}; it runs edgeward {__version__}")
        except EdgewardError as error:
            return error_reply(order, self.name, error)
        except Exception as error:  # a runtime's own exceptions share no base class; the host must live on
            reason = " ".join(str(error).split())[:300]
            return error_reply(order, self.name, HostError(f"{type(error).__name__}: {reason}"))

    @property
    def used_bytes(self) -> int:
        """Bytes that the deployed stages take."""
        return sum(stage.bytes for stage in self._stages.values())

    def describe(self) -> dict[str, Any]:
        """What others may know of this host."""
        return {
            "name": self.name,
            "version": __version__,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": self.threads,
            "memory": self.memory,
            "used": self.used_bytes,
            "codecs": sorted(CODECS),
            "stages": {name: stage.package for name, stage in self._stages.items()},
        }

    def _deploy(self, order: Message) -> Message:
        package = Package.of_message(order)
        needed = len(package.payload) + package.working_bytes
        known = package.stage_id in self._stages
        if not known and self.memory is not None and self.used_bytes + needed > self.memory:
            raise HostError(
                f"blocks {package.first} to {package.last} of {package.model!r} need {format_bytes(needed)}, but host "
                f"{self.name!r} has {format_bytes(self.memory - self.used_bytes)} of {format_bytes(self.memory)} left; "
                "plan with its memory stated in the fleet, or start it with more"
            )
        if not known:
            about = f"{package.model}[{package.first}-{package.last}]"
            self._stages[package.stage_id] = _Deployed(about, needed, package.open(self.threads))
        return _answer(order, {"stage": package.stage_id, "used": self.used_bytes})

    def _run(self, order: Message) -> Message:
        entry, onward = _route(order)
        stage = self._stages.get(str(entry.get("stage")))
        if stage is None:
            raise HostError(f"host {self.name!r} does not hold stage {entry.get('stage')!r}; deploy it first")
        packing = Packing.parse(str(entry.get("packing") or "identity"))
        times = [self.now()]
        arrays = unpack(order.tensors, self.limits)
        times.append(self.now())
        found = stage.run(arrays)
        times.append(self.now())
        parts = packing.pack(found)
        times.append(self.now())
        step = {
            "host": self.name,
            "stage": entry.get("stage"),
            "arrived": order.meta.get("arrived", times[0]),
            "times": times,
            "bytes_in": sum(len(part.data) for part in order.tensors),
            "bytes_out": sum(len(part.data) for part in parts),
        }
        kept = {key: value for key, value in order.meta.items() if key not in ("arrived", "route")}
        meta = {**kept, "trace": [*order.meta.get("trace", ()), step], "sent": self.now()}
        if onward:
            return Message("run", {**meta, "route": onward}, parts, order.sequence)
        return Message("result", meta, parts, order.sequence)


def error_reply(order: Message, host: str, error: EdgewardError) -> Message:
    """The answer to an order that failed."""
    meta = {"error": type(error).__name__, "message": str(error), "host": host, "trace": order.meta.get("trace", [])}
    return replace(_answer(order, meta), kind="error")


def _answer(order: Message, meta: Mapping[str, Any]) -> Message:
    kept = {key: order.meta[key] for key in ("sender", "request") if key in order.meta}
    return Message("result", {**kept, **meta}, (), order.sequence)


def _route(order: Message) -> tuple[Mapping[str, Any], list[Any]]:
    route = order.meta.get("route")
    if not isinstance(route, list) or not route or not all(isinstance(one, dict) for one in route):
        raise WireError("an order to run names no route; sender and host may be of different versions")
    return route[0], route[1:]
