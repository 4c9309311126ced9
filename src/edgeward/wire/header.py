"""The first 64 bytes of a message: what it is, how long, and what proves that it arrived whole.

    header = Header.unpack(first_bytes)      # WireError when these are not the start of a message
    header.check(Limits())                   # WireError before anything of that size is allocated
    header.total                             # bytes of the whole message

Little-endian: magic (4), version (2), flags (2, zero), JSON bytes (4), low half of the tensors' XXH3-64 (4), tensor
bytes (8), sequence (8), BLAKE2b-256 of these 32 bytes and the JSON (32). XXH3 costs a tenth of what CRC-32 does.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import xxhash

from edgeward.errors import WireError
from edgeward.units import format_bytes

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["ALIGNMENT", "HEADER_BYTES", "VERSION", "Header", "Limits", "checksum"]

VERSION = 2
ALIGNMENT = 64
_MAGIC = b"EDGW"
_FIELDS = struct.Struct("<4sHHIIQQ")
_DIGEST_BYTES = 32
HEADER_BYTES = _FIELDS.size + _DIGEST_BYTES


@dataclass(frozen=True)
class Limits:
    """What a receiver accepts: bytes of a message and of its JSON, tensors, and values they decode to in all."""

    max_bytes: int = 256 << 20
    max_meta_bytes: int = 1 << 20
    max_tensors: int = 1024
    max_elements: int = 1 << 28

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is not int or value < 1:
                raise WireError(f"Limits.{name} is {value!r}; it is a whole number of at least 1")


@dataclass(frozen=True)
class Header:
    """Lengths in bytes (multiples of 64), the sender's running number, and the checksum of the tensors."""

    json_bytes: int
    payload_bytes: int
    sequence: int
    checksum: int

    @property
    def total(self) -> int:
        """Bytes of the whole message."""
        return HEADER_BYTES + self.json_bytes + self.payload_bytes

    @classmethod
    def unpack(cls, data: memoryview) -> Header:
        """The header at the start of `data`. Raises WireError for other bytes or another version."""
        if data.nbytes < HEADER_BYTES:
            raise WireError(f"{data.nbytes} bytes are not a message; the header alone has {HEADER_BYTES}")
        magic, version, flags, json_bytes, check, payload_bytes, sequence = _FIELDS.unpack_from(data)
        if magic != _MAGIC:
            raise WireError(f"the bytes begin with {magic!r}, not {_MAGIC!r}; the sender is not edgeward")
        if version != VERSION:
            raise WireError(
                f"the message is of wire version {version}, this edgeward speaks version {VERSION}; "
                "upgrade edgeward on the older host"
            )
        if flags or json_bytes % ALIGNMENT or payload_bytes % ALIGNMENT:
            raise WireError("the header of the message is damaged; the sender must send it again")
        return cls(json_bytes, payload_bytes, sequence, check)

    def pack(self, text: bytes) -> bytes:
        """Header and JSON as bytes."""
        lengths = (self.json_bytes, self.checksum, self.payload_bytes, self.sequence)
        fields = _FIELDS.pack(_MAGIC, VERSION, 0, *lengths)
        return b"".join((fields, _digest(fields, text), text))

    def check(self, limits: Limits) -> None:
        """Raise WireError when the message is larger than the limits allow."""
        if self.json_bytes > limits.max_meta_bytes:
            sizes = f"{format_bytes(self.json_bytes)}; at most {format_bytes(limits.max_meta_bytes)}"
            raise WireError(f"the values of the message take {sizes} (Limits.max_meta_bytes)")
        if self.total > limits.max_bytes:
            sizes = f"{format_bytes(self.total)}; at most {format_bytes(limits.max_bytes)}"
            raise WireError(f"the message takes {sizes} (Limits.max_bytes)")

    def verify(self, header: memoryview, text: memoryview) -> None:
        """Raise WireError when header or JSON changed since they were packed."""
        if not hmac.compare_digest(header[_FIELDS.size :], _digest(header[: _FIELDS.size], text)):
            raise WireError("the header of the message does not match its checksum; it was damaged on the way")


def checksum(buffers: Iterable[Buffer]) -> int:
    """The low 32 bits of the XXH3-64 of the buffers as if they were one."""
    whole = xxhash.xxh3_64()
    for buffer in buffers:
        whole.update(buffer)
    return whole.intdigest() & 0xFFFFFFFF


def _digest(fields: Buffer, text: Buffer) -> bytes:
    digest = hashlib.blake2b(fields, digest_size=_DIGEST_BYTES)
    digest.update(text)
    return digest.digest()
