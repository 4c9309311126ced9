"""Certificates: whose word counts between nodes, and what is said when it does not."""

from __future__ import annotations

import datetime
import os
import queue
import socket
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward.errors import ConfigError, HostError, StoreError
from edgeward.wire.certificates import make_authority, make_certificate, tls_files
from edgeward.wire.channel import Channel
from edgeward.wire.endpoints import Tls

LOCAL = ["127.0.0.1", "::1", "localhost"]
CLIENT = """
import sys, time
from pathlib import Path
from edgeward.wire.channel import Channel
from edgeward.wire.certificates import tls_files
with Channel(connect=[sys.argv[1]], tls=tls_files(Path(sys.argv[2]), sys.argv[3])) as channel:
    channel.subscribe("test/answer", lambda data: print(data.decode(), flush=True))
    channel.declare_alive(sys.argv[3])
    while not channel.listeners("test/data"):
        time.sleep(0.005)
    channel.publish("test/data", [b"from " + sys.argv[3].encode()])
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two fleets that do not know each other."""
    made = []
    for fleet in ("ours", "theirs"):
        folder = tmp_path_factory.mktemp(fleet) / "certificates"
        make_authority(folder)
        make_certificate(folder, "box", LOCAL)
        make_certificate(folder, "pi", ["pi.local", "192.168.1.7"])
        made.append(folder)
    return made[0], made[1]


def free_endpoint(host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
    return f"tcp/[{host}]:{port}" if ":" in host else f"tcp/{host}:{port}"


def until_listening(channel: Channel, key: str) -> None:
    end = time.monotonic() + 5
    while not channel.listeners(key):
        assert time.monotonic() < end
        time.sleep(0.005)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def forged(folder: Path, source: Path, start: datetime.datetime, end: datetime.datetime) -> Tls:
    """The box's certificate of `source` with another time of validity, properly signed."""
    signer = serialization.load_pem_private_key((source / "ca.key").read_bytes(), None)
    issuer, model = load(source / "ca.pem"), load(source / "box.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(issuer.subject, model.subject, key.public_key(), x509.random_serial_number(), start, end)  # fmt: skip
    for extension in model.extensions:
        if not isinstance(extension.value, x509.SubjectKeyIdentifier):
            builder = builder.add_extension(extension.value, extension.critical)
    files = Tls(source / "ca.pem", folder / "box.pem", folder / "box.key")
    files.certificate.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))  # fmt: skip
    return files


def test_what_a_certificate_says(folders):
    ours = folders[0]
    authority, node = load(ours / "ca.pem"), load(ours / "pi.pem")
    node.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not node.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["pi.local"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.168.1.7"]
    purposes = node.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH}
    assert node.public_key().curve.name == "secp256r1"
    for key in ("ca.key", "pi.key"):
        assert stat.S_IMODE((ours / key).stat().st_mode) == 0o600


def test_nothing_is_overwritten_and_nodes_join_an_existing_authority(tmp_path):
    make_authority(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StoreError, match="authority already"):
        make_authority(tmp_path)
    make_certificate(tmp_path, "a", ["a"])
    first = (tmp_path / "a.key").read_bytes()
    with pytest.raises(StoreError, match="exists; move"):
        make_certificate(tmp_path, "a", ["a"])
    make_certificate(tmp_path, "b", ["b"])
    assert (tmp_path / "a.key").read_bytes() == first
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    (tmp_path / "ca.pem").unlink()  # a key alone is still an authority
    with pytest.raises(StoreError, match="authority already"):
        make_authority(tmp_path)


def test_wrong_wishes(tmp_path, folders):
    with pytest.raises(StoreError, match="make_authority"):
        make_certificate(tmp_path, "a", ["a"])
    for name in ("ca", "", "../a", "a b", "a/b", "x" * 64):
        with pytest.raises(ConfigError, match="node name"):
            make_certificate(folders[0], name, ["a"])
    for host in ("", "a b", "tcp/a", "a:1", "-a", "a..b", "[::1]"):
        with pytest.raises(ConfigError, match="neither a DNS name nor"):
            make_certificate(folders[0], "new", [host])
    with pytest.raises(ConfigError, match="no hosts"):
        make_certificate(folders[0], "new", [])
    with pytest.raises(ConfigError, match="0 days"):
        make_certificate(folders[0], "new", ["a"], days=0)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        make_authority(tmp_path / "file")
    assert not (folders[0] / "new.key").exists()


def test_files_that_are_missing_or_do_not_belong_together(folders, tmp_path):
    ours, theirs = folders
    with pytest.raises(StoreError, match=r"nobody\.pem is missing; make certificates"):
        tls_files(ours, "nobody")
    with pytest.raises(StoreError, match="cannot be used"):
        Channel(tls=Tls(ours / "ca.pem", ours / "box.pem", ours / "pi.key"))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Channel(tls=Tls(tmp_path / "empty.pem", ours / "box.pem", ours / "box.key"))
    for path in theirs.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "ca.key").write_bytes((ours / "ca.key").read_bytes())
    with pytest.raises(StoreError, match="not the key of"):
        make_certificate(tmp_path, "new", ["a"])


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_two_processes_with_certificates_of_one_authority_talk(folders, host):
    try:
        endpoint = free_endpoint(host)
    except OSError:
        pytest.skip("this machine has no IPv6")
    got: queue.Queue[bytes] = queue.Queue()
    alive: queue.Queue[tuple[str, bool]] = queue.Queue()
    with Channel(listen=endpoint, tls=tls_files(folders[0], "box")) as box:
        box.subscribe("test/data", got.put)
        box.watch(lambda *event: alive.put(event))
        command = [sys.executable, "-c", CLIENT, endpoint, str(folders[0]), "pi"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert got.get(timeout=10) == b"from pi"
            assert alive.get(timeout=5) == ("pi", True)
            box.publish("test/answer", [b"welcome"])
            assert child.stdout.readline() == "welcome\n"
        finally:
            child.kill()
            child.communicate()
        assert alive.get(timeout=1) == ("pi", False)


def test_strangers_are_refused_and_their_data_never_arrive(folders):
    ours, theirs = folders
    endpoint = free_endpoint()
    heard: list[object] = []
    with Channel(listen=endpoint, tls=tls_files(ours, "box")) as box:
        box.subscribe("**", heard.append)
        box.watch(lambda *event: heard.append(event))
        # One who trusts us but is of another fleet, one of another fleet altogether, and one without certificates.
        mixed = Tls(ours / "ca.pem", theirs / "pi.pem", theirs / "pi.key")
        for tls, why in (
            (mixed, "refuses this node's certificate"),
            (
                tls_files(theirs, "pi"),
                "its certificate is refused: unable to get local issuer|its certificate is refused",
            ),
            (None, "without certificates"),
        ):
            with pytest.raises(HostError, match=why):
                Channel(connect=[endpoint], tls=tls, timeout=0.4)
        with Channel(connect=[endpoint], tls=tls_files(ours, "pi")) as pi:  # the box still serves its own
            until_listening(pi, "test/data")
            pi.publish("test/data", [b"mine"])
            end = time.monotonic() + 5
            while not heard and time.monotonic() < end:
                time.sleep(0.005)
    assert heard == [b"mine"]


def test_raw_tls_without_a_client_certificate_gets_nothing(folders):
    endpoint = free_endpoint()
    port = int(endpoint.rsplit(":", 1)[1])
    with Channel(listen=endpoint, tls=tls_files(folders[0], "box")):
        context = ssl.create_default_context(cafile=str(folders[0] / "ca.pem"))
        with (
            socket.create_connection(("127.0.0.1", port), timeout=3) as plain,
            pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
            context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
        ):
            secured.recv(1)


def test_a_host_of_another_name_and_expired_certificates_are_named(folders, tmp_path):
    ours = folders[0]
    endpoint = free_endpoint()
    with (
        Channel(listen=endpoint, tls=tls_files(ours, "pi")),
        pytest.raises(HostError, match="IP address mismatch"),
    ):
        Channel(connect=[endpoint], tls=tls_files(ours, "box"), timeout=0.4)
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    expired = forged(tmp_path, ours, now - 2 * day, now - day)
    endpoint = free_endpoint()
    with Channel(listen=endpoint, tls=expired), pytest.raises(HostError, match="expired"):
        Channel(connect=[endpoint], tls=tls_files(ours, "pi"), timeout=0.4)
    endpoint = free_endpoint()
    with Channel(listen=endpoint, tls=tls_files(ours, "box")), pytest.raises(HostError, match="refuses this node's"):
        Channel(connect=[endpoint], tls=expired, timeout=0.4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        make_authority(tmp_path)
