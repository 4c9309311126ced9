"""A folder as it would be on a slow disk: read-only, so many bytes a second, every read through the page cache.

    with SlowDisk(folder, bytes_per_second=100e6) as mounted:
        (mounted / "weights.safetensors").read_bytes()

A file system in a process of its own, over the kernel's FUSE interface, protocol 7.31 (linux/fuse.h); Linux and root
only. The kernel's own limits on reads (blkio.throttle, io.max) count in slices of 100 ms: at 100 MB/s any ten megabytes
are free of charge, more than a load.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

DEVICE = Path("/dev/fuse")
PAGES = 32
"""Most pages of one read, 128 KiB; a smaller share of a load, so that little is waited for in vain."""

WITHOUT_PAUSE = 0.002
"""Seconds: what is asked for this soon after the read before is taken to have been asked for at its end."""

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT = 1, 2, 3, 14, 15, 17, 18, 25, 26
OPENDIR, READDIR, RELEASEDIR, ACCESS, INTERRUPT, DESTROY, FORGET_MANY = 27, 28, 29, 34, 36, 38, 42
SILENT = {FORGET, FORGET_MANY, INTERRUPT}
DONE = {RELEASE, FLUSH, RELEASEDIR, ACCESS, DESTROY}
HEADER = struct.Struct("<IIQQIIII")
ASYNC_READ, MAX_PAGES, KEEP_CACHE = 1, 1 << 22, 2
FOREVER = 1 << 20
READ_ONLY, DETACH = 1, 2


class SlowDisk:
    """The files of a folder, not of folders in it, mounted elsewhere until the end of the block. quiet: fails so."""

    def __init__(self, folder: Path, bytes_per_second: float, quiet: bool = False) -> None:
        self._errors = subprocess.DEVNULL if quiet else None
        self._command = [sys.executable, __file__, str(folder), str(bytes_per_second)]
        self._process: subprocess.Popen[str] | None = None
        self._place: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        self._place = tempfile.TemporaryDirectory(prefix="slow-disk-")
        # A session of its own: Ctrl-C ends the readers first, then `__exit__` the disk.
        self._process = subprocess.Popen(
            [*self._command, self._place.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "mounted\n":
            self.__exit__(None, None, None)
            raise OSError("the slow disk could not be mounted; see above")
        return Path(self._place.name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._place is not None
        unmount(self._place.name)
        with self._process:
            self._process.terminate()
        self._place.cleanup()

    @staticmethod
    def missing() -> str:
        """Why there can be none here, "" when there can."""
        if not sys.platform.startswith("linux") or not DEVICE.exists():
            return f"there is no {DEVICE}"
        if os.geteuid() != 0:
            return "mounting needs root"
        with tempfile.TemporaryDirectory() as folder:  # a container's root may not be allowed to
            try:
                with SlowDisk(Path(folder), 1e6, quiet=True):
                    return ""
            except OSError:
                return "mounting is not permitted"


def unmount(place: str) -> None:
    """Take the file system away, also while files are open; nothing happens when there is none."""
    ctypes.CDLL(None).umount2(place.encode(), DETACH)


def serve(folder: Path, bytes_per_second: float, place: str) -> None:
    """Be the disk until it is unmounted."""
    device = os.open(DEVICE, os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"slowdisk", place.encode(), b"fuse", READ_ONLY, options.encode()):
        raise OSError(ctypes.get_errno(), f"cannot mount on {place}: {os.strerror(ctypes.get_errno())}")
    # The parent asks for an end; when it dies instead, its end of the pipe closes with it.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    os.nice(-10)  # a disk is not slowed by the processor's load
    print("mounted", flush=True)
    try:
        with contextlib.suppress(OSError):  # unmounted
            _Disk(folder, bytes_per_second).answer_all(device)
    finally:
        unmount(place)


class _Disk:
    """Answers the kernel's requests one at a time. Node 1 is the folder, the others are its files."""

    def __init__(self, folder: Path, bytes_per_second: float) -> None:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        self._nodes = {path.name: node for node, path in enumerate(paths, start=2)}
        self._files = {node: os.open(folder / name, os.O_RDONLY) for name, node in self._nodes.items()}
        self._attributes = {1: _attributes(1, 0, 0o40755)} | {
            node: _attributes(node, os.fstat(file).st_size, 0o100444) for node, file in self._files.items()
        }
        self._seconds_per_byte = 1 / bytes_per_second
        self._free = 0.0

    def answer_all(self, device: int) -> None:
        while request := os.read(device, 1 << 18):
            _, operation, unique, node, *_ = HEADER.unpack_from(request)
            if operation in SILENT:
                continue
            try:
                body, failure = self._answer(operation, node, request[HEADER.size :]), 0
            except OSError as error:
                body, failure = b"", error.errno or errno.EIO
            try:
                os.writev(device, [struct.pack("<IiQ", 16 + len(body), -failure, unique), body])
            except FileNotFoundError:  # whoever asked is gone
                continue

    def _answer(self, operation: int, node: int, request: bytes) -> bytes:
        if operation in DONE:
            return b""
        if operation == READ:
            offset, size = struct.unpack_from("<QI", request, 8)
            return self._read(node, offset, size)
        if operation == GETATTR:
            return struct.pack("<QII", FOREVER, 0, 0) + self._attributes[node]
        if operation in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, KEEP_CACHE, 0)
        if operation == LOOKUP:
            found = self._nodes.get(request.rstrip(b"\0").decode())
            if found is None:
                raise FileNotFoundError(errno.ENOENT, "")
            return struct.pack("<QQQQII", found, 0, FOREVER, FOREVER, 0, 0) + self._attributes[found]
        if operation == READDIR:
            return self._listed(*struct.unpack_from("<QI", request, 8))
        if operation == STATFS:
            return struct.pack("<QQQQQIIII24x", 0, 0, 0, len(self._files), 0, 4096, 255, 4096, 0)
        if operation == INIT:
            _, _, read_ahead, _ = struct.unpack_from("<IIII", request)
            limits = (12, 9, 1 << 17, 1, PAGES)
            return struct.pack("<IIIIHHIIH34x", 7, 31, read_ahead, ASYNC_READ | MAX_PAGES, *limits)
        raise OSError(errno.ENOSYS, "")

    def _read(self, node: int, offset: int, size: int) -> bytes:
        """The bytes, when a device that does one read after another would have them."""
        data = os.pread(self._files[node], size, offset)
        now = time.monotonic()
        begin = self._free if now < self._free + WITHOUT_PAUSE else now
        self._free = begin + len(data) * self._seconds_per_byte
        time.sleep(max(self._free - time.monotonic(), 0))
        return data

    def _listed(self, offset: int, size: int) -> bytes:
        entries = b""
        for place, (name, node) in enumerate(list(self._nodes.items())[offset:], start=offset + 1):
            entry = struct.pack("<QQII", node, place, len(name), 8) + name.encode()
            entry += b"\0" * (-len(entry) % 8)
            if len(entries) + len(entry) > size:
                break
            entries += entry
        return entries


def _attributes(node: int, size: int, mode: int) -> bytes:
    blocks = -(-size // 512)
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, blocks, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
