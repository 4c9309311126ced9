"""Running a packed model: the weights are borrowed, not copied.

    session = Session(packed, store, threads=1)     # the skeleton
    session.attach()                                # the weights: about a millisecond
    [boxes] = session.run({"images": batch})
    session.detach()                                # their memory is free; the skeleton stays

Used as a context manager it attaches at entry and closes at exit.
"""

from __future__ import annotations

import functools
import mmap
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime

from edgeward.errors import ConfigError, ModelError
from edgeward.weights.pack import PackedModel, session_options
from edgeward.weights.store import WeightStore

__all__ = ["Session", "best_provider"]

PROVIDERS = {
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Devices by the name of their execution provider, best first."""


class Session:
    """A model's skeleton, to which weights are attached when it is to run.

    Sessions of one model in one store share skeleton and weights; each has its own bindings. `run` may be
    called from one thread at a time. Raises ModelError when the runtime refuses the graph.
    """

    def __init__(self, packed: PackedModel, store: WeightStore, threads: int = 1) -> None:
        self.packed = packed
        self._store = store
        self._threads = threads
        self._binding: Any = None
        # The runtime reads weights through their pointers: views live as long as they are bound.
        self._views: list[npt.NDArray[Any]] = []
        self._nothing = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(0, np.float32))
        self._session: Any = self._skeleton() if packed.tensors else None

    @property
    def attached(self) -> bool:
        """Whether the model can run."""
        return self._binding is not None

    def attach(self) -> None:
        """Borrow the weights. Raises StoreError when one is missing or damaged; nothing is attached then.

        A model that is kept whole (see `PackedModel.tensors`) is loaded by the runtime here.
        """
        if self.attached:
            return
        session = self._session or self._skeleton()
        there = self._store.borrowed(self.packed.tensors.values())
        views = [self._store.borrow(ref) for ref in self.packed.tensors.values()]
        for ref, view in zip(self.packed.tensors.values(), views, strict=True):
            if ref.digest not in there:
                _read(view)
        binding = session.io_binding()
        for name, view in zip(self.packed.tensors, views, strict=True):
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(view))
        self._session, self._views, self._binding = session, views, binding

    def detach(self) -> None:
        """Let go of the weights. Safe to call twice."""
        self._binding = None
        self._views = []
        if not self.packed.tensors:
            self._session = None

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """All outputs, in the order of `PackedModel.outputs`. Raises ModelError for inputs that do not fit."""
        binding = self._binding
        if binding is None:
            raise ModelError("the model's weights are not attached; call attach() first")
        try:
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
            for port in self.packed.outputs:
                binding.bind_output(port.name)
            self._session.run_with_iobinding(binding)
            return [np.asarray(output) for output in binding.copy_outputs_to_cpu()]
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(f"inference failed: {str(error).splitlines()[0][:300]}") from error
        finally:
            # A binding keeps what is bound alive: an idle session would hold its last input and outputs.
            binding.clear_binding_outputs()
            for name in feeds:
                binding.bind_ortvalue_input(name, self._nothing)

    def close(self) -> None:
        """Let go of everything. Safe to call twice."""
        self.detach()
        self._session = None

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _skeleton(self) -> Any:
        return self._store.shared(f"{self.packed.graph} {self._threads}", self._created)

    def _created(self) -> Any:
        options = session_options(self._threads)
        if self.packed.tensors:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self.packed.provider == "cpu":
            # Activations of all sessions come from one arena: the box runs one inference at a time.
            _share_arena()
            # A planned block for all activations would lie in the arena beside the pieces of a first run.
            options.enable_mem_pattern = False
            options.add_session_config_entry("session.use_env_allocators", "1")
        providers = list(dict.fromkeys((PROVIDERS[self.packed.provider], "CPUExecutionProvider")))
        try:
            return onnxruntime.InferenceSession(str(self.packed.graph), options, providers=providers)
        except Exception as error:  # the runtime's own exceptions share no base class
            raise ModelError(f"{self.packed.graph} cannot be loaded: {str(error).splitlines()[0][:300]}") from error


def _read(view: npt.NDArray[Any]) -> None:
    """Have every page of a mapped tensor in memory: a load takes the time that this takes, not the first inference."""
    # Numpy lets other threads run only while it goes through more than 500 elements.
    step = min(mmap.PAGESIZE, max(view.nbytes // 1024, 1))
    view.reshape(-1).view(np.uint8)[::step].max(initial=0)


@functools.cache
def _share_arena() -> None:
    """Make the runtime's process-wide arena, once; it grows by what is asked for and no more."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    grow_as_requested = onnxruntime.OrtArenaCfg(0, 1, 1 << 20, -1)
    onnxruntime.create_and_register_allocator(memory, grow_as_requested)


def best_provider(device: str = "auto") -> str:
    """The device to run on: the one asked for, or with "auto" the best that the installed runtime offers.

    Raises ConfigError when the one asked for is not there.
    """
    available = onnxruntime.get_available_providers()
    present = [name for name, provider in PROVIDERS.items() if provider in available]
    if device == "auto":
        return present[0]
    if device not in present:
        raise ConfigError(f"budget.device is {device!r}, but this onnxruntime offers only {', '.join(present)}")
    return device
