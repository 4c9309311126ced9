"""Where a channel listens or connects, the files that secure it, and why a connection fails.

endpoint = Endpoint.parse("tcp/192.168.1.7:7447")
endpoint.loopback                  # False: it needs Tls
endpoint.locator(secure=True)      # 'tls/192.168.1.7:7447'
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from edgeward.errors import HostError, StoreError

__all__ = ["Endpoint", "Tls"]

_FORM = re.compile(r"(?:tcp/|tls/)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")


@dataclass(frozen=True)
class Tls:
    """PEM files of mutual TLS: the fleet's authority, this node's certificate and its key."""

    ca: Path
    certificate: Path
    key: Path

    def check(self) -> None:
        """Raise StoreError when a file is missing or the three do not belong together."""
        for path in (self.ca, self.certificate, self.key):
            if not Path(path).is_file():
                raise StoreError(f"{path} is missing; make certificates with `edgeward node cert`")
        self.context()

    def context(self) -> ssl.SSLContext:
        """What a client with these files trusts and shows. Raises StoreError when they cannot be used."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise StoreError(
                f"{self.certificate}, {self.key.name} and {self.ca.name} cannot be used: {error}"
            ) from error
        return context


@dataclass(frozen=True)
class Endpoint:
    """A host, by name or address, and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """From "tcp/HOST:PORT" or "HOST:PORT", IPv6 addresses in brackets. Raises HostError for another form."""
        match = _FORM.fullmatch(text)
        if match is None or not 0 < int(match[3]) < 65536 or (match[1] and not _is_ipv6(match[1])):
            raise HostError(
                f"{text!r} is not an endpoint; write tcp/HOST:PORT with a port from 1 to 65535, such as "
                "tcp/192.168.1.7:7447 or tcp/[::1]:7447"
            )
        return cls(match[1] or match[2], int(match[3]))

    @property
    def loopback(self) -> bool:
        """Whether it cannot be reached from another machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def locator(self, *, secure: bool) -> str:
        """As Zenoh wants it: brackets around an IPv6 address would become part of the name that its TLS looks for."""
        return f"tls/{self.host}:{self.port}" if secure else str(self)

    def __str__(self) -> str:
        return f"tcp/[{self.host}]:{self.port}" if ":" in self.host else f"tcp/{self.host}:{self.port}"

    def taken(self) -> str:
        """Try to listen by hand and say what goes wrong; empty when nothing does."""
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            socket.create_server((self.host, self.port), family=family).close()
        except OSError as error:
            return f"{os.strerror(error.errno or 0)}; end what uses the port, or choose another address"
        return ""

    def fault(self, tls: Tls | None, timeout: float = 2.0) -> str:
        """Why a channel cannot connect: try by hand, step by step; empty when every step succeeds."""
        try:
            with socket.create_connection((self.host, self.port), timeout) as plain:
                if tls is None:
                    return ""
                with tls.context().wrap_socket(plain, server_hostname=self.host) as secured:
                    return _refused(secured)
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is refused: {error.verify_message}"
        except ssl.SSLError as error:
            return f"the TLS handshake fails: {error.reason or error}; does it run with certificates too?"
        except socket.gaierror:
            return "no such host name; check the spelling or give an IP address"
        except TimeoutError:
            return "no answer; is the host on, and does a firewall close the port?"
        except OSError as error:
            return f"{error.strerror or error}; is `edgeward node` running there?"


def _refused(secured: ssl.SSLSocket) -> str:
    """In TLS 1.3 a server judges the client's certificate after the client's handshake is done (RFC 8446, 4.4.2.4)."""
    secured.settimeout(0.5)
    try:
        return "" if secured.recv(1) else "it closes the connection after the handshake"
    except TimeoutError:
        return ""
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        return f"it refuses this node's certificate ({reason}); are both from the same authority, and not expired?"


def _is_ipv6(text: str) -> bool:
    try:
        return isinstance(ipaddress.ip_address(text), ipaddress.IPv6Address)
    except ValueError:
        return False
