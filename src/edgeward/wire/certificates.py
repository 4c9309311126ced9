"""A private certificate authority for a fleet, and one certificate for each of its nodes.

    make_authority(folder)                                      # ca.pem and ca.key; the key stays on this machine
    make_certificate(folder, "pi", ["pi.local", "192.168.1.7"])  # pi.pem and pi.key; copy both and ca.pem to the node
    Channel(connect=["tcp/192.168.1.7:7447"], tls=tls_files(folder, "box"))

Keys are ECDSA P-256 (FIPS 186-5). Both sides of a connection show a certificate of the same authority (mutual TLS,
RFC 8446, section 4.3.2); clients also compare the address they connect to with the names in it (RFC 9525).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeward.errors import ConfigError, StoreError
from edgeward.wire.endpoints import Tls

__all__ = ["make_authority", "make_certificate", "tls_files"]

_AUTHORITY = "ca"
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*")
_AUTHORITY_DAYS = 3650
_NODE_DAYS = 825
_SKEW = datetime.timedelta(hours=1)  # clocks of boards without a battery run behind


@dataclass(frozen=True)
class _Subject:
    """Whose certificate: name, key, and for how many days it holds."""

    name: str
    key: ec.EllipticCurvePublicKey
    days: int


def make_authority(folder: Path) -> Path:
    """Make `ca.key` (mode 0600) and `ca.pem` in a folder; returns the certificate's path.

    Raises StoreError when there is an authority already: a new one would lock out every node that trusts the old.
    """
    certificate, key = _paths(folder, _AUTHORITY)
    if certificate.exists() or key.exists():
        raise StoreError(f"{folder} holds a certificate authority already; use it, or name an empty folder")
    _folder(folder)
    private = ec.generate_private_key(ec.SECP256R1())
    subject = _Subject("edgeward fleet authority", private.public_key(), _AUTHORITY_DAYS)
    builder = _builder(subject, _distinguished(subject.name), private)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    _write(key, _pem(private), 0o600)
    _write(certificate, builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)
    return certificate


def make_certificate(folder: Path, name: str, hosts: Sequence[str], *, days: int = _NODE_DAYS) -> Tls:
    """Make a node's `NAME.key` (mode 0600) and `NAME.pem`, signed by the authority in the folder.

    hosts: the DNS names and IP addresses under which others reach the node; one that only connects may have any one,
    such as its name. The certificate is good for both ends of a connection.
    Raises ConfigError for a wrong name, host or number of days, StoreError when the authority is missing or the node
    has files already.
    """
    if _NODE.fullmatch(name) is None or name == _AUTHORITY:
        raise ConfigError(f"node name {name!r} cannot name a certificate; use letters, digits, '.', '_', '-', not 'ca'")
    if not hosts:
        raise ConfigError(f"no hosts for {name!r}; give the DNS names or IP addresses under which it is reached")
    if not 1 <= days <= _AUTHORITY_DAYS:
        raise ConfigError(f"{days} days for {name!r}; a certificate holds from 1 to {_AUTHORITY_DAYS} days")
    names = [_general_name(host) for host in hosts]
    issuer, signer = _authority(folder)
    certificate, key = _paths(folder, name)
    if certificate.exists() or key.exists():
        raise StoreError(f"{certificate} or {key.name} exists; move them away to give {name!r} a new certificate")
    private = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_Subject(name, private.public_key(), days), issuer.subject, signer)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    _write(key, _pem(private), 0o600)
    _write(certificate, builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)
    return tls_files(folder, name)


def tls_files(folder: Path, name: str) -> Tls:
    """The three files of a node for `Channel`. Raises StoreError when one is missing."""
    certificate, key = _paths(folder, name)
    files = Tls(_paths(folder, _AUTHORITY)[0], certificate, key)
    files.check()
    return files


def _paths(folder: Path, name: str) -> tuple[Path, Path]:
    return Path(folder) / f"{name}.pem", Path(folder) / f"{name}.key"


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, key = _paths(folder, _AUTHORITY)
    try:
        issuer = x509.load_pem_x509_certificate(certificate.read_bytes())
        signer = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise StoreError(
            f"{error.filename} is missing; make an authority first with make_authority({folder})"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"the certificate authority in {folder} cannot be read: {error}") from error
    if not isinstance(signer, ec.EllipticCurvePrivateKey) or signer.public_key() != issuer.public_key():
        raise StoreError(f"{key} is not the key of {certificate}; put the pair together again")
    return issuer, signer


def _builder(subject: _Subject, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """What every certificate says; `signer` is the issuer's key."""
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_distinguished(subject.name))
        .issuer_name(issuer)
        .public_key(subject.key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=subject.days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject.key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _distinguished(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if _HOST.fullmatch(host) is None:
            raise ConfigError(f"{host!r} is neither a DNS name nor an IP address; leave out port and scheme") from None
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _folder(folder: Path) -> None:
    try:
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a new file with its mode from the first byte on; an existing one is never touched."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from error
