"""A model as a skeleton plus references into the weight store.

    packed = pack(Path("model.onnx"), store, provider="cpu")
    print(sum(packed.tensor_bytes.values()))

The graph is optimised by ONNX Runtime once, layout transform included, and saved with its weights
turned into inputs: a skeleton of some tens of kilobytes, to which weights are bound when the model is
loaded. That form fits one runtime version and one kind of processor, so it is keyed by both; the
portable file stays as it is. A later `pack` of the same file reads one JSON file.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from pydantic import TypeAdapter, ValidationError

from edgeward.errors import ModelError, StoreError
from edgeward.weights.store import DTYPES, TensorRef, WeightStore, digest_of, write_atomically

__all__ = [
    "PackedModel",
    "Port",
    "example",
    "loaded",
    "machine",
    "pack",
    "ports",
    "present",
    "same_answers",
    "session_options",
]

VERSION = 3
INLINE_BYTES = 1024
"""Tensors below this stay in the skeleton: binding them would cost more than they do."""

TOLERANCE = 1e-4
"""Largest difference from the plain model, relative to its largest output, that a skeleton may show."""


@dataclass(frozen=True)
class Port:
    """An input or output: name, element type as ONNX Runtime names it, shape with names for what may vary."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class PackedModel:
    """A model ready to be loaded.

    graph: the skeleton; the whole model where weights cannot be bound to it (`tensors` is then empty).
    tensors: the weights that live in the store, by the name of the input that takes them.
    tensor_bytes: bytes of the model's weights by content, exact.
    inputs, outputs: those of the model itself, without weights.
    """

    graph: Path
    provider: str
    tensors: Mapping[str, TensorRef]
    tensor_bytes: Mapping[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


_MANIFEST = TypeAdapter(PackedModel)


def pack(path: Path, store: WeightStore, provider: str = "cpu", external: Sequence[Path] = ()) -> PackedModel:
    """Optimise `path` for this machine and move its weights into `store`, unless that was done before.

    external: the files beside `path` that hold its weights, if any.

    Raises ModelError when ONNX Runtime cannot load the model, StoreError when the disk refuses.
    """
    content = " ".join(_file_digest(file) for file in (path, *external))
    key = hashlib.sha256(f"{VERSION} {content} {provider} {machine()}".encode()).hexdigest()[:32]
    manifest = store.folder / f"{key}.json"
    known = _read(manifest, store)
    if known is not None:
        return known
    packed = (
        _pack_for_cpu(path, store, key, bool(external))
        if provider == "cpu"
        else _pack_portable(path, store, key, provider)
    )
    write_atomically(manifest, [_MANIFEST.dump_json(packed)])
    return packed


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options every session shares: `threads` compute threads that sleep when idle, errors only in the log."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would burn the core that decodes the next frame.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def present(packed: PackedModel, store: WeightStore) -> bool:
    """Whether all that a model of before names is still there. Raises OSError when a segment is not."""
    sizes = {name: (store.folder / name).stat().st_size for name in {ref.segment for ref in packed.tensors.values()}}
    whole = all(ref.offset + ref.nbytes <= sizes[ref.segment] for ref in packed.tensors.values())
    return whole and packed.graph.is_file()


def _read(manifest: Path, store: WeightStore) -> PackedModel | None:
    """A manifest of before, when all that it names is still there."""
    try:
        packed = _MANIFEST.validate_json(manifest.read_bytes())
        return packed if present(packed, store) else None
    except (OSError, ValidationError):
        return None


def _pack_for_cpu(path: Path, store: WeightStore, key: str, external: bool) -> PackedModel:
    import onnx

    with tempfile.TemporaryDirectory(dir=store.folder, prefix=".packing-") as scratch:
        optimised = Path(scratch) / "optimised.onnx"
        options = session_options(threads=1)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(optimised)
        if external:  # else the optimised graph would look for the old file beside itself
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        plain = loaded(path, options, ["CPUExecutionProvider"])
        model = onnx.load(optimised)
    weights = _storable(model.graph.initializer, store.folder)
    refs = dict(zip(weights, store.put(list(weights.values())), strict=True))
    _bind_weights_as_inputs(model, refs)
    graph = store.folder / f"{key}.onnx"
    write_atomically(graph, [model.SerializeToString()])
    held = {ref.digest: ref.nbytes for ref in refs.values()}
    packed = PackedModel(graph, "cpu", refs, held, ports(plain.get_inputs()), ports(plain.get_outputs()))
    if _answers_alike(plain, packed, store):
        return packed
    shutil.copyfile(path, graph)
    return replace(packed, tensors={})


def _pack_portable(path: Path, store: WeightStore, key: str, provider: str) -> PackedModel:
    """For other processors the runtime optimises at load and copies the weights to the device itself."""
    import onnx

    plain = loaded(path, session_options(threads=1), ["CPUExecutionProvider"])
    weights = _storable(onnx.load(path).graph.initializer, path.parent)
    held = {digest_of(array): array.nbytes for array in weights.values()}
    graph = store.folder / f"{key}.onnx"
    shutil.copyfile(path, graph)
    return PackedModel(graph, provider, {}, held, ports(plain.get_inputs()), ports(plain.get_outputs()))


def _storable(initializers: Any, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors worth storing, by name: large ones of a dtype that a segment can hold."""
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor, str(folder)) for tensor in initializers}
    known = set(DTYPES.values())
    return {name: array for name, array in arrays.items() if array.nbytes >= INLINE_BYTES and array.dtype in known}


def _bind_weights_as_inputs(model: Any, refs: Mapping[str, TensorRef]) -> None:
    """Turn stored tensors from constants of a graph into inputs, and drop what serving does not need."""
    from onnx import helper

    graph = model.graph
    del graph.value_info[:]
    for node in graph.node:
        node.name, node.doc_string = "", ""
    kept = []
    for tensor in graph.initializer:
        if tensor.name in refs:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        else:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _answers_alike(plain: onnxruntime.InferenceSession, packed: PackedModel, store: WeightStore) -> bool:
    """Whether the skeleton with its weights bound gives the plain model's outputs, on one seeded input.

    Some operators accept weights only as constants; a model that has one is kept whole.
    """
    from edgeward.weights.session import Session

    random = np.random.default_rng(0)
    try:
        feeds = {port.name: example(port, random) for port in packed.inputs}
        expected = plain.run(None, feeds)
    except Exception:  # nothing can be concluded from an input that the model itself refuses
        return True
    try:
        with Session(packed, store) as session:
            outputs = session.run(feeds)
    except (ModelError, StoreError):
        return False
    return same_answers(outputs, expected)


def same_answers(outputs: Sequence[np.ndarray[Any, Any]], expected: Sequence[np.ndarray[Any, Any]]) -> bool:
    """Whether outputs are those expected, up to rounding."""
    return all(
        np.allclose(
            ours, theirs, rtol=TOLERANCE, atol=TOLERANCE * float(np.abs(theirs).max(initial=1e-6)), equal_nan=True
        )
        for ours, theirs in zip(outputs, expected, strict=True)
    )


def example(port: Port, random: np.random.Generator, batch: int = 1) -> np.ndarray[Any, Any]:
    """An input that fits: unknown dimensions are `batch` where the batch is, 64 elsewhere."""
    shape = [size if isinstance(size, int) else batch if axis == 0 else 64 for axis, size in enumerate(port.shape)]
    dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}[port.type]
    return (random.random(shape) * (255 if dtype == np.uint8 else 1)).astype(dtype)


def loaded(path: Path, options: onnxruntime.SessionOptions, providers: list[str]) -> onnxruntime.InferenceSession:
    """A session on a graph. Raises ModelError when the runtime refuses it."""
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the runtime's own exceptions share no base class
        raise ModelError(f"{path} cannot be loaded: {str(error).splitlines()[0][:300]}") from error


def ports(nodes: Any) -> tuple[Port, ...]:
    """A session's inputs or outputs."""
    return tuple(Port(node.name, node.type, tuple(node.shape)) for node in nodes)


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error


def machine() -> str:
    """What the optimised form depends on: the runtime's version and the processor's abilities."""
    flags = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(errors="replace").splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), flags)
    return f"{onnxruntime.__version__} {hashlib.sha256(flags.encode()).hexdigest()}"
