"""How labelled pictures lie on disk.

    images, labels, classes = read_npz(Path("test.npz"))     # uint8 [n, h, w, c], int64 [n]

Sizes are checked before memory is taken, and nothing is unpickled.
"""

from __future__ import annotations

import gzip
import itertools
import math
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeward.errors import SourceError

__all__ = ["Pictures", "read_folder", "read_idx", "read_npz"]

Pictures = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], tuple[str, ...]]
Size = tuple[int, int]
LARGEST_BYTES = 4 << 30
LARGEST_FILE = 64 << 20
SUFFIXES = {".jpg", ".jpeg", ".png"}


def read_folder(path: Path, size: Size | None) -> Pictures:
    """One folder per class, in the order of their names; resized to (height, width) where that is given."""
    classes = sorted(one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith("."))
    files = [(label, file) for label, name in enumerate(classes) for file in sorted((path / name).iterdir())]
    files = [(label, file) for label, file in files if file.suffix.lower() in SUFFIXES]
    if not files:
        raise SourceError(
            f"{path} holds no pictures in folders; make one folder per class with .jpg or .png files, or name the "
            f"file of pictures (*.npz, *-images-idx3-ubyte.gz)"
        )
    images = _decoded(len(files), ((str(file), _bytes(file)) for _, file in files), size)
    return images, np.array([label for label, _ in files], np.int64), tuple(classes)


def read_npz(path: Path, size: Size | None) -> Pictures:
    """`x` and `y`, or `blob`, `off` and `y` (resized to `size` if given); `classes` (text) if it is there."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            wanted = {"x", "y"} if "x" in names else {"blob", "off", "y"}
            if not wanted <= names:
                found = ", ".join(sorted(names)) or "nothing"
                raise SourceError(f"{path} holds {found}; it needs arrays x and y, or blob, off and y")
            arrays = {name: _array(archive, name, path) for name in wanted | ({"classes"} & names)}
    except (zipfile.BadZipFile, zlib.error, ValueError, NotImplementedError, EOFError) as error:
        raise SourceError(f"{path} is not an .npz file, or damaged: {error}") from error
    labels = arrays["y"]
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or not labels.size:
        raise SourceError(f"{path}: y is {labels.dtype} {labels.shape}; give one whole number per picture")
    labels = labels.astype(np.int64)
    named = arrays.get("classes")
    if named is not None and named.dtype.kind == "U" and named.ndim == 1:
        classes = tuple(str(name) for name in named)
    else:
        classes = tuple(str(label) for label in range(min(max(int(labels.max()), 0), 1 << 20) + 1))
    return _plain(arrays["x"], path) if "x" in arrays else _unpacked(arrays, path, size), labels, classes


def read_idx(path: Path) -> Pictures:
    """Pictures and, from the file beside it, their labels; gzipped or not."""
    other = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    images, labels = _idx(path, 3), _idx(other, 1).astype(np.int64)
    return images[..., None], labels, tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))


def _array(archive: zipfile.ZipFile, name: str, path: Path) -> npt.NDArray[Any]:
    info = archive.getinfo(f"{name}.npy")
    if info.file_size > LARGEST_BYTES:
        raise SourceError(f"{path}: {name} has {info.file_size} bytes; at most {LARGEST_BYTES} are read")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise SourceError(f"{path}: {name} has .npy version {version}; save it again with numpy.savez")
        shape, _, dtype = read(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
            raise SourceError(f"{path}: {name} holds objects, or says more than the file has; save plain numbers")
    with archive.open(info) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _plain(x: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint8]:
    if x.ndim == 4 and x.dtype.kind == "f" and x.size:
        if not (x.min() >= 0 and x.max() <= 1):  # also where a value is not a number
            raise SourceError(f"{path}: x goes from {x.min():.3g} to {x.max():.3g}; floats must be pixels in 0..1")
        return np.round(x.transpose(0, 2, 3, 1) * 255).astype(np.uint8)
    if x.ndim == 4 and x.dtype == np.uint8:
        return x
    raise SourceError(f"{path}: x is {x.dtype} {x.shape}; give uint8 [n, h, w, c] or float [n, c, h, w]")


def _bytes(file: Path) -> bytes:
    if file.stat().st_size > LARGEST_FILE:
        raise SourceError(f"{file} has {file.stat().st_size} bytes; a picture may have {LARGEST_FILE}")
    return file.read_bytes()


def _unpacked(arrays: dict[str, npt.NDArray[Any]], path: Path, size: Size | None) -> npt.NDArray[np.uint8]:
    blob, offsets, count = arrays["blob"], arrays["off"], len(arrays["y"])
    if blob.dtype != np.uint8 or blob.ndim != 1 or offsets.dtype.kind not in "iu" or offsets.shape != (count + 1,):
        raise SourceError(
            f"{path}: blob is {blob.dtype} {blob.shape}, off {offsets.dtype} {offsets.shape}, for {count} labels; "
            f"give uint8 bytes and {count + 1} offsets"
        )
    starts = [int(one) for one in offsets]
    if starts[0] < 0 or starts[-1] > len(blob) or any(a > b for a, b in itertools.pairwise(starts)):
        raise SourceError(f"{path}: offsets must rise from 0 to the {len(blob)} bytes of blob")
    encoded = ((f"{path}, picture {i}", blob[starts[i] : starts[i + 1]].tobytes()) for i in range(count))
    return _decoded(count, encoded, size)


def _decoded(count: int, pictures: Iterable[tuple[str, bytes]], size: Size | None) -> npt.NDArray[np.uint8]:
    """RGB pictures of one size, of so many encoded ones with the names that messages use."""
    made: npt.NDArray[np.uint8] | None = None
    for index, (name, data) in enumerate(pictures):
        image = _picture(name, data, size)
        if made is None:
            if count * image.size > LARGEST_BYTES:
                raise SourceError(f"{count} pictures of {image.shape} exceed {LARGEST_BYTES} bytes; give fewer")
            made = np.empty((count, *image.shape), np.uint8)
        if image.shape != made.shape[1:]:
            raise SourceError(
                f"{name} has {image.shape[:2]} pixels, the first picture {made.shape[1:3]}; say to what size to bring "
                f"all: load_labelled(path, size=(height, width))"
            )
        made[index] = image
    assert made is not None
    return made


def _picture(name: str, data: bytes, size: Size | None) -> npt.NDArray[np.uint8]:
    import cv2

    from edgeward.vision.sources.decode import check_size
    from edgeward.vision.sources.folder import image_size

    extent = image_size(data)
    if extent is None or 0 in extent:
        raise SourceError(f"{name} is no JPEG or PNG picture; remove it or convert it")
    check_size(name, *extent)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise SourceError(f"{name} cannot be decoded: {error.err}") from error
    if image is None:
        raise SourceError(f"{name} cannot be decoded; obtain it again or remove it")
    if size is not None and image.shape[:2] != size:
        image = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def _idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    with path.open("rb") as start:
        zipped = start.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise SourceError(f"{path} is not an IDX file of bytes with {dimensions} dimensions")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            count = math.prod(shape)
            if not 0 < count <= LARGEST_BYTES:
                raise SourceError(f"{path} says it holds {shape}; 1 to {LARGEST_BYTES} bytes are read")
            data = file.read(count + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path} is damaged: {error}; obtain it again") from error
    if len(data) != count:
        raise SourceError(f"{path} says it holds {shape}, but has {'more' if len(data) > count else 'fewer'} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()
