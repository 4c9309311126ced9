"""Some of the outputs of a network that has several, as a network of its own: an exit of it.

    file = user_onnx(Path("detector.onnx"))                              # outputs "early" and "boxes"
    path = one_exit(file, ("early",), Path("~/.cache/edgeward/models").expanduser())

A network with early exits (Teerapittayanon, McDanel and Kung, "BranchyNet: fast inference via early exiting from deep
neural networks", ICPR 2016) answers after a part of its work. A runtime that is asked for the early output computes the
others all the same, so the file is cut: what is left computes this answer and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeward.errors import ModelError, nearest
from edgeward.units import format_bytes
from edgeward.zoo.files import replacing, sha256
from edgeward.zoo.onnxfile import MAX_ONNX_BYTES, OnnxFile
from edgeward.zoo.onnxgraph import behind

__all__ = ["one_exit"]

VERSION = 1
"""Raised whenever the same file gives another one."""


def one_exit(file: OnnxFile, outputs: Sequence[str], cache: Path) -> Path:
    """The ONNX file in `cache` that gives just these outputs, in this order; made when it is not there yet.

    Weights that are kept beside the file are in it. Raises ModelError when the file has no such output or is larger
    than 2 GiB then, StoreError when the cache cannot be written.
    """
    for name in outputs:
        if name not in file.output_names:
            raise ModelError(f"{file.path} has no output {name!r}; {nearest(name, file.output_names)}")
    content = " ".join(sha256(each) for each in (file.path, *file.external))
    key = hashlib.sha256(f"{VERSION} {content} {list(outputs)}".encode()).hexdigest()[:20]
    target = cache / f"{file.path.stem[:64]}-exit-{key}.onnx"
    if not target.is_file():
        _cut(file, outputs, target)
    return target


def _cut(file: OnnxFile, outputs: Sequence[str], target: Path) -> None:
    import onnx

    model = onnx.load(file.path, load_external_data=False)
    graph = model.graph
    needed, declared = behind(graph.node, outputs), {each.name: each for each in graph.output}
    kept = {
        "node": [graph.node[place] for place in needed.places],
        # An old file lists its weights as inputs, too.
        "input": [each for each in graph.input if each.name == file.input_name or each.name in needed.left],
        "output": [declared[name] for name in outputs],
        "initializer": [each for each in graph.initializer if each.name in needed.left],
        "sparse_initializer": [each for each in graph.sparse_initializer if each.values.name in needed.left],
        "value_info": [],
        "quantization_annotation": [],
    }
    for field, values in kept.items():
        del getattr(graph, field)[:]
        getattr(graph, field).extend(values)
    apart = [place for place, each in enumerate(graph.initializer) if each.data_location]
    beside = {place: _place(file.path.parent, graph.initializer[place]) for place in apart}
    total = model.ByteSize() + sum(count for _, _, count in beside.values())
    if total > MAX_ONNX_BYTES:
        raise ModelError(
            f"{file.path} cut at {', '.join(outputs)} has {format_bytes(total)}; an ONNX file has at most "
            f"{format_bytes(MAX_ONNX_BYTES)}: take a smaller network"
        )
    for number, (path, start, count) in beside.items():
        tensor = graph.initializer[number]
        tensor.raw_data = _read(path, start, count)
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    with replacing(target) as temporary:
        onnx.save(model, temporary)


def _place(folder: Path, tensor: Any) -> tuple[Path, int, int]:
    """The file that holds a tensor, checked before to lie in the model's folder, its first byte there and its bytes."""
    entries = {each.key: each.value for each in tensor.external_data}
    path = folder / entries["location"]
    try:
        start = int(entries.get("offset", 0))
        count = int(entries.get("length", path.stat().st_size - start))
    except (ValueError, OSError) as error:
        raise ModelError(f"cannot read the weights {tensor.name!r} in {path}: {error}") from error
    if start < 0 or count < 0:
        raise ModelError(f"the weights {tensor.name!r} are said to be {count} bytes from byte {start} on in {path}")
    return path, start, count


def _read(path: Path, start: int, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(count)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if len(data) < count:
        raise ModelError(f"{path} ends before byte {start + count}; copy it beside the model again")
    return data
