"""Tensors by their content: written once, mapped into memory once, however many models use them.

    store = WeightStore(folder)
    [ref] = store.put([array])
    view = store.borrow(ref)     # read-only, no copy; the same memory for every borrower

Tensors live in segments, plain safetensors files whose tensor names are the tensors' digests. What
a new model brings that no segment holds yet becomes one new segment; the rest is referred to. A
segment is mapped while anything in it is borrowed, and a tensor's pages are given back to the
system when its last borrower lets go.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import StoreError

__all__ = ["TensorRef", "WeightStore"]

Array = npt.NDArray[Any]

MAX_HEADER_BYTES = 64 << 20
ALIGNMENT = 64
"""Bytes; tensors begin at multiples of it, the width of the widest vector registers."""

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorRef:
    """Where a tensor is. digest: SHA-256 of dtype, shape and bytes; offset: of its first byte in the segment file."""

    digest: str
    dtype: str
    shape: tuple[int, ...]
    segment: str
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


class WeightStore:
    """A folder of segments. Safe for many threads, and for many processes on one folder.

    Raises StoreError when the folder cannot be used or the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._maps: weakref.WeakValueDictionary[str, _Segment] = weakref.WeakValueDictionary()
        self._views: weakref.WeakValueDictionary[str, Array] = weakref.WeakValueDictionary()
        self._shared: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot use {folder}: {error.strerror}; choose another 'cache' folder") from error

    def put(self, arrays: Sequence[Array]) -> list[TensorRef]:
        """References to `arrays`; those that the store does not hold yet are written as one new segment."""
        contents = [np.ascontiguousarray(array).reshape(array.shape) for array in arrays]
        digests = [digest_of(array) for array in contents]
        known = self.index()
        new = {digest: array for digest, array in zip(digests, contents, strict=True) if digest not in known}
        if new:
            known |= {ref.digest: ref for ref in self._write_segment(new)}
        return [known[digest] for digest in digests]

    def borrow(self, ref: TensorRef) -> Array:
        """The tensor as a read-only view of mapped memory; the same one for all who hold it now.

        Raises StoreError when its segment is missing or damaged.
        """
        with self._lock:
            view = self._views.get(ref.digest)
            if view is None:
                segment = self._maps.get(ref.segment)
                if segment is None:
                    segment = self._maps[ref.segment] = _Segment(self.folder / ref.segment)
                view = self._views[ref.digest] = segment.view(ref)
            return view

    def borrowed(self, refs: Iterable[TensorRef]) -> dict[str, Array]:
        """Those of the tensors that somebody holds now, by digest."""
        with self._lock:
            views = {ref.digest: self._views.get(ref.digest) for ref in refs}
        return {digest: view for digest, view in views.items() if view is not None}

    def shared(self, key: str, make: Callable[[], Any]) -> Any:
        """What `make` returns, made once for all who hold it under `key` now: skeletons are shared like tensors."""
        with self._lock:
            thing = self._shared.get(key)
            if thing is None:
                thing = self._shared[key] = make()
            return thing

    def index(self) -> dict[str, TensorRef]:
        """Every tensor in the store by digest; damaged segments are left out."""
        found: dict[str, TensorRef] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                found |= {ref.digest: ref for ref in read_header(path)}
            except StoreError:
                continue
        return found

    def collect(self, wanted: Iterable[str]) -> int:
        """Delete the segments that hold none of the `wanted` digests; the bytes freed."""
        keep, freed = set(wanted), 0
        for path in self.folder.glob("*.safetensors"):
            try:
                useful = any(ref.digest in keep for ref in read_header(path))
            except StoreError:
                useful = False
            if not useful:
                freed += path.stat().st_size
                path.unlink(missing_ok=True)
        return freed

    def _write_segment(self, tensors: dict[str, Array]) -> list[TensorRef]:
        # Whole multiples of the alignment first: then all of them are aligned without holes.
        order = sorted(tensors, key=lambda digest: (tensors[digest].nbytes % ALIGNMENT != 0, digest))
        header: dict[str, Any] = {}
        position = 0
        for digest in order:
            array = tensors[digest]
            end = position + array.nbytes
            header[digest] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": [position, end]}
            position = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % mmap.PAGESIZE)
        name = hashlib.sha256(text).hexdigest()[:32] + ".safetensors"
        pieces: list[bytes | memoryview] = [
            len(text).to_bytes(8, "little"),
            text,
            *(_raw(tensors[digest]) for digest in order),
        ]
        write_atomically(self.folder / name, pieces)
        return read_header(self.folder / name)


class _Segment:
    """One mapped file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"weights {path} cannot be read ({error}); delete {path.parent} to have them made again"
            ) from error

    def view(self, ref: TensorRef) -> Array:
        end = ref.offset + ref.nbytes
        if end > len(self.map):
            raise StoreError(f"weights {self.path} are cut short; delete {self.path.parent} to have them made again")
        flat: Array = np.frombuffer(self.map, DTYPES[ref.dtype], prod(ref.shape), ref.offset)
        view: Array = flat.reshape(ref.shape)
        # The finalizer keeps the segment alive as long as the view, then gives the pages back.
        weakref.finalize(view, self._give_back, ref.offset, end).atexit = False
        return view

    def _give_back(self, start: int, end: int) -> None:
        """Drop whole pages inside a range: what others still use on its border pages stays."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self.map.madvise(mmap.MADV_DONTNEED, first, length)


def digest_of(array: Array) -> str:
    """SHA-256 over dtype, shape and bytes. TypeError for a dtype that a segment cannot hold."""
    if array.dtype not in _NAMES:
        raise TypeError(f"dtype {array.dtype} cannot be stored; known: {', '.join(str(d) for d in _NAMES)}")
    sha = hashlib.sha256(f"{_NAMES[array.dtype]}{array.shape}".encode())
    sha.update(_raw(array))
    return sha.hexdigest()


def _raw(array: Array) -> memoryview:
    """The bytes of an array."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def read_header(path: Path) -> list[TensorRef]:
    """The tensors of a segment. Raises StoreError when the file is not one or is cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise StoreError(f"{path} is not a safetensors file")
            header = json.loads(file.read(length))
        refs = []
        for digest, entry in header.items():
            start, end = entry["data_offsets"]
            ref = TensorRef(digest, entry["dtype"], tuple(entry["shape"]), path.name, 8 + length + start)
            if not 0 <= start <= end <= size - 8 - length or ref.nbytes != end - start:
                raise StoreError(f"{path} is cut short or damaged")
            refs.append(ref)
        return refs
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error


def write_atomically(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file so that it is there whole or not at all. Raises StoreError when the disk refuses."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
            temporary = Path(file.name)
            try:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}; free some space or choose another 'cache' folder"
        ) from error
