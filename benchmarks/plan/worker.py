"""One device of the emulated fleet: profiles, and runs its stage of a plan. Orders come on standard input, one JSON a line.

Tensors come and go over TCP, through the emulated links. Times are those of the system's monotonic clock, which all
processes of one machine share.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from typing import Any

import numpy as np
import torch

from edgeward.graph.chain import cut
from edgeward.profile.backends import prepare
from edgeward.profile.profiler import ProfileOptions, as_profile, profile_chain
from edgeward.zoo.reference import build


class Worker:
    def __init__(self, network: str, side: int, backend: str, port: int) -> None:
        torch.set_num_threads(1)
        self.backend = backend
        generator = torch.Generator().manual_seed(0)
        self.example = torch.rand(1, 3, side, side, generator=generator)
        self.chain = cut(build(network).eval(), self.example)
        self.network = network
        self.runner = prepare(self.chain, backend, 1)
        self.server = socket.create_server(("", port), backlog=4)
        self.stage: Any = None
        self.upstream: socket.socket | None = None
        self.downstream: socket.socket | None = None
        self.latency = 0.0

    def profile(self, repeats: int) -> dict[str, Any]:
        times = profile_chain(self.chain, ProfileOptions(self.backend, repeats=repeats))
        profile = as_profile(self.chain, self.network).model_copy(update={"times": {"here": times}})
        return profile.model_dump(mode="json")

    def deploy(self, first: int, last: int, receives: bool, to: list[Any] | None) -> dict[str, Any]:
        for connection in (self.upstream, self.downstream):
            if connection is not None:
                connection.close()
        self.upstream = self.downstream = None
        self.stage = self.runner.stage(first, last) if last >= 0 else None
        if to is not None:
            address, port, self.latency = to
            self.downstream = socket.create_connection((address, port), timeout=30)
            self.downstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receives:
            self.upstream, _ = self.server.accept()
        if self.stage is not None:  # warm
            values = [one.numpy() for one in self.runner.inputs[first]]
            for _ in range(2):
                self.stage(values)
        return {}

    def run(self) -> dict[str, Any]:
        if self.upstream is None:
            arrays, start = [self.example.numpy()], time.monotonic()
        else:
            arrays, start = receive(self.upstream), None
        if self.stage is not None:
            arrays = self.stage(arrays)
        if self.downstream is None:
            os.getppid()  # where processor time is rationed, the wait comes with the next call of the system
            return {"start": start, "end": time.monotonic(), "sum": float(np.float64(arrays[0]).sum())}
        time.sleep(self.latency)
        send(self.downstream, arrays)
        return {"start": start}

    def transfer(self, count: int) -> dict[str, Any]:
        """Only for measuring links: send or receive so many bytes."""
        if self.downstream is not None:
            start = time.monotonic()
            send(self.downstream, [np.zeros(count, np.uint8)])
            return {"start": start}
        receive(self.upstream)
        return {"end": time.monotonic()}


def send(connection: socket.socket, arrays: list[Any]) -> None:
    heads = [{"dtype": str(array.dtype), "shape": list(array.shape)} for array in arrays]
    head = json.dumps(heads).encode()
    connection.sendall(struct.pack("<I", len(head)) + head)
    for array in arrays:
        connection.sendall(np.ascontiguousarray(array).data.cast("B"))


def receive(connection: socket.socket) -> list[Any]:
    head = json.loads(exactly(connection, struct.unpack("<I", exactly(connection, 4))[0]))
    arrays = []
    for one in head:
        count = int(np.prod(one["shape"])) * np.dtype(one["dtype"]).itemsize
        arrays.append(np.frombuffer(exactly(connection, count), one["dtype"]).reshape(one["shape"]))
    return arrays


def exactly(connection: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        got = connection.recv_into(view[done:])
        if not got:
            raise EOFError("the other side hung up")
        done += got
    return data


def main() -> None:
    network, side, backend, port = sys.argv[1:5]
    worker = Worker(network, int(side), backend, int(port))
    print("{}", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(getattr(worker, order.pop("do"))(**order)), flush=True)


if __name__ == "__main__":
    main()
