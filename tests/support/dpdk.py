# SPDX-License-Identifier: BSD-2-Clause
"""Daemons with ports of DPDK devices: where they run, how they are configured, and why they cannot be tested."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cuse_netmap.backends.dpdk import unavailable
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.veth import Peer, Wire

EAL = "--no-huge -m 256 --no-pci"

needs_dpdk = pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "there")


def configuration(ports: str, eal: str = EAL) -> str:
    return f'[dpdk]\neal = "{eal}"\n{ports}'


def port(name: str, devargs: str, **options: object) -> str:
    """A port's table; options as TOML spells them."""
    lines = [f"[ports.{name}]", 'backend = "dpdk"', f'devargs = "{devargs}"']
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in options.items()), ""])


@contextmanager
def served(folder: Path, config: str, peer: Peer | None = None, under: Sequence[str] = ()) -> Iterator[Daemon]:
    """A daemon of this configuration in the network namespace of `peer`, or in the test's."""
    path = folder / "config.toml"
    path.write_text(config)
    if peer is None:
        with Daemon(folder / "log", f"--config={path}", "--log-level=debug", under=under) as daemon:
            yield daemon
        return
    with network_namespace(peer.namespace):
        daemon = Daemon(folder / "log", f"--config={path}", "--log-level=debug", under=under)
    with daemon:
        yield daemon


def failing(folder: Path, config: str, under: Sequence[str] = ()) -> str:
    """What a daemon that must not start with this says."""
    path = folder / "config.toml"
    path.write_text(config)
    daemon = Daemon(folder / "log", f"--config={path}", expect_ready=False, under=under)
    if daemon.mmap:
        daemon.stop()
        raise AssertionError("it has started")
    assert daemon.process.returncode == 1, daemon.log
    assert "Traceback" not in daemon.log
    return daemon.log


@contextmanager
def wired(folder: Path, ports: str) -> Iterator[tuple[Daemon, Wire]]:
    """A daemon in the near network namespace of a wire of its own."""
    with Wire() as wire, served(folder, configuration(ports), wire.near) as daemon:
        yield daemon, wire
