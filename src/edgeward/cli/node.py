"""`edgeward node`: run blocks of networks for others, and the certificates that let nodes trust each other.

edgeward node --listen tcp/127.0.0.1:7447 --name edge
edgeward node cert certs edge --host 192.168.1.7
edgeward node --listen tcp/192.168.1.7:7447 --name edge --certs certs --announce
edgeward node list --certs certs --name pi
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from edgeward.cli.output import note, print_json, show_table
from edgeward.errors import ConfigError

__all__ = ["app", "cert", "list_", "node"]

app = typer.Typer(
    help="Run blocks of networks for others; find nodes; make certificates.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def node(
    context: typer.Context,
    listen: Annotated[str, typer.Option(help="Where to listen: tcp/HOST:PORT.")] = "tcp/127.0.0.1:7447",
    name: Annotated[str, typer.Option(help="This node's name, as the fleet calls the device.")] = "node",
    certs: Annotated[
        Path | None, typer.Option(help="Folder of certificates; needed beyond loopback.", show_default=False)
    ] = None,
    memory: Annotated[
        str, typer.Option(help="Memory for stages, such as 512MiB; without it, no limit.", show_default=False)
    ] = "",
    max_message: Annotated[str, typer.Option(help="Largest message taken.")] = "1 GiB",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads that one stage computes with.")] = 1,
    announce: Annotated[bool, typer.Option("--announce", help="Be found by multicast (`edgeward node list`).")] = False,
) -> None:
    """Run blocks of networks for others until interrupted. `edgeward split run` sends them here."""
    if context.invoked_subcommand is not None:
        return
    from edgeward.units import format_bytes
    from edgeward.wire.certificates import tls_files
    from edgeward.wire.header import Limits
    from edgeward.wire.node import Node
    from edgeward.wire.pages import keep_freed_memory
    from edgeward.wire.server import StageServer

    keep_freed_memory()
    most = _size("--max-message", max_message)
    limit = _size("--memory", memory) if memory else None
    server = StageServer(name, limit, threads, Limits(max_bytes=most, max_elements=most))
    running = Node(server, listen, tls_files(certs, name) if certs is not None else None, note, announce=announce)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    room = f"{format_bytes(limit)} for stages" if limit else "no memory limit"
    note(f"node {name!r} listens at {listen} ({room}, {threads} thread{'s' if threads > 1 else ''}); Ctrl-C ends it")
    while not stop.wait(0.5):
        pass
    running.close()
    note(f"node {name!r} handled {running.handled} orders")


def _size(option: str, text: str) -> int:
    from edgeward.units import parse_bytes

    try:
        size = parse_bytes(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error
    if size < 1 << 20:
        raise ConfigError(f"{option} {text}: give at least 1 MiB")
    return size


@app.command("list")
def list_(
    certs: Annotated[
        Path | None, typer.Option(help="Folder of certificates; nodes beyond loopback ask for one.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="Whose certificate in that folder to show.")] = "node",
    wait: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to listen for answers.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the nodes of this network that announce themselves (started with --announce)."""
    from edgeward.wire.certificates import tls_files
    from edgeward.wire.discovery import discover

    found = discover(wait, tls_files(certs, name) if certs is not None else None)
    if as_json:
        print_json([vars(one) for one in found])
        return
    if not found:
        note(f"no node answered within {wait:g} s; start nodes with --announce, on a network that passes multicast")
        return
    show_table("nodes", ["name", "endpoint", ""], [[one.name or "?", one.endpoint, one.reason] for one in found])


@app.command()
def cert(
    folder: Annotated[Path, typer.Argument(help="Where certificates are kept; made if absent.", show_default=False)],
    name: Annotated[str, typer.Argument(help="The node's name.", show_default=False)],
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address it is reached at; may be repeated.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a certificate for a node, and the fleet's own authority the first time.

    Give every machine the authority's certificate and its own two files; the authority's key stays with you.
    """
    from edgeward.wire.certificates import make_authority, make_certificate

    if not (folder / "ca.pem").exists():
        make_authority(folder)
    files = make_certificate(folder, name, host or ["127.0.0.1", "localhost"])
    if as_json:
        print_json({"ca": str(files.ca), "certificate": str(files.certificate), "key": str(files.key)})
        return
    show_table(
        f"certificate of {name!r}",
        ["file", "what it is"],
        [
            [str(files.ca), "authority, for every machine"],
            [str(files.certificate), f"for {name!r}"],
            [str(files.key), f"secret of {name!r}"],
        ],
    )
