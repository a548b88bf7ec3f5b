# SPDX-License-Identifier: BSD-2-Clause
"""What cannot be had of DPDK is refused with a sentence that says why, and the daemon goes on or ends (issue F)."""

import subprocess
import sys
from pathlib import Path

import pytest

from cuse_netmap.config import ConfigError, load
from tests.support import dpdk
from tests.support.command import COMMAND
from tests.support.host import ip
from tests.support.patience import at_most
from tests.support.steps import refused

pytestmark = dpdk.needs_dpdk

HIDE = 'mount --bind /dev/null "$(realpath "$0")" && exec "$@"'


def loaded_library() -> str:
    """Where the dynamic linker has found librte_eal."""
    import cuse_netmap.backends.dpdk_library  # noqa: F401 - loads it

    maps = Path("/proc/self/maps").read_text()
    return next(line.split()[-1] for line in maps.splitlines() if "librte_eal" in line)


def hidden() -> list[str]:
    """To start a program with, which then finds a DPDK that is not one: an empty file."""
    return ["unshare", "--mount", "sh", "-c", HIDE, loaded_library()]


def one(devargs: str, **options: object) -> str:
    return dpdk.configuration(dpdk.port("wan0", devargs, **options))


@pytest.mark.parametrize(
    ("devargs", "options", "said"),
    [
        ("", {}, "port wan0: devargs is missing"),
        ("net_af_packet0,iface=nosuch", {}, "port wan0: device net_af_packet0,iface=nosuch: "),
        ("net_af_packet0", {}, "port wan0: device net_af_packet0: "),
        ("net_nonsense0", {}, "port wan0: no device: net_nonsense0"),
        ("0000:ff:1f.7", {}, "port wan0: device 0000:ff:1f.7: "),
        ("net_af_packet0,iface=lo", {"mtu": 9000}, "port wan0: 1 queue(s), an MTU of 9000: "),
        ("net_af_packet0,iface=lo", {"queues": 4}, "port wan0: 4 queues: the device has 1 to receive and 1 to send"),
        ("net_null0", {"descriptors": 32768, "queues": 16, "mbuf_size": 9000}, "port wan0: memory for "),
        ("=,=", {}, "port wan0: no device: =,="),
    ],
)
def test_a_device_that_cannot_be_had_is_named_with_the_reason(
    tmp_path: Path, devargs: str, options: dict[str, object], said: str
) -> None:
    """Issue F: bad devargs, no memory: a message for everything DPDK returns."""
    assert said in dpdk.failing(tmp_path, one(devargs, **options))


@pytest.mark.parametrize("eal", ["--no-such-option", "-m", "--lcores=999", "-Q"])
def test_a_wrong_option_of_the_eal_is_named(tmp_path: Path, eal: str) -> None:
    """Issue F: wrong option: the daemon does not start, and says that it is DPDK that did not."""
    log = dpdk.failing(tmp_path, dpdk.configuration(dpdk.port("wan0", "net_null0"), eal=f"{dpdk.EAL} {eal}"))
    assert "port wan0: starting DPDK: Invalid argument: " in log
    assert "Usage" not in log


def test_help_of_the_eal_does_not_end_the_daemon_in_silence(tmp_path: Path) -> None:
    """EAL prints its options and ends the program: refused before it can."""
    log = dpdk.failing(tmp_path, dpdk.configuration(dpdk.port("wan0", "net_null0"), eal="--help"))
    assert "port wan0: the EAL option --help would end the program" in log


def test_more_memory_than_there_is_is_refused(tmp_path: Path) -> None:
    """Issue F: no memory."""
    log = dpdk.failing(
        tmp_path, dpdk.configuration(dpdk.port("wan0", "net_null0"), eal="--no-huge -m 100000000 --no-pci")
    )
    assert "port wan0: starting DPDK: " in log


def test_a_device_has_one_port(tmp_path: Path) -> None:
    """Issue F: port taken."""
    log = dpdk.failing(tmp_path, dpdk.configuration(dpdk.port("a", "net_ring0") + dpdk.port("b", "net_ring0")))
    assert "port b: net_ring0 is taken by another port" in log


def test_a_device_that_the_eal_has_made_can_be_a_port(tmp_path: Path) -> None:
    """Issue F: options from [dpdk]; --vdev is one of them."""
    config = dpdk.configuration(dpdk.port("wan0", "net_null7"), eal=f"{dpdk.EAL} --vdev=net_null7,size=100")
    with dpdk.served(tmp_path, config):
        assert refused("wan0") == 0


def test_a_device_that_fails_at_a_reload_leaves_the_daemon_as_it_is(tmp_path: Path) -> None:
    """Issue F: an errno and a message, and the next reload tries again."""
    from tests.device.test_dpdk_life import rewrite

    loop = dpdk.port("loop", "net_ring0")
    with dpdk.served(tmp_path, dpdk.configuration(loop)) as daemon:
        more = dpdk.configuration(loop + dpdk.port("more", "net_af_packet0,iface=later0"))
        assert "reload: [ports.more]: refused: port more: device net_af_packet0,iface=later0: " in rewrite(daemon, more)
        assert refused("loop") == 0
        ip("link", "add", "later0", "type", "veth", "peer", "later1")
        try:
            ip("link", "set", "later0", "up")
            assert "reload: [ports.more]: done" in rewrite(daemon, more)
            assert refused("more") == 0
        finally:
            ip("link", "delete", "later0")


def test_without_libdpdk_a_configuration_that_names_it_fails_with_that_sentence(tmp_path: Path) -> None:
    """Issue F: no libdpdk."""
    log = dpdk.failing(tmp_path, one("net_null0"), under=hidden())
    assert "port wan0: the dpdk backend cannot be loaded: " in log


def test_without_libdpdk_doctor_reports_the_backend_absent() -> None:
    """Issue F: the same sentence."""
    done = subprocess.run(
        [*hidden(), *COMMAND, "doctor"],
        capture_output=True,
        text=True,
        check=False,
        timeout=at_most(60),
        stdin=subprocess.DEVNULL,
    )
    assert "no   dpdk backend       the dpdk backend cannot be loaded: " in done.stdout


def test_a_build_without_libdpdk_has_no_such_module_and_says_so(tmp_path: Path) -> None:
    """Issue F: optional, built when libdpdk is there."""
    code = (
        "import sys; sys.modules['cuse_netmap._dpdk'] = None\n"
        "from cuse_netmap.backends.dpdk import unavailable\nprint(unavailable())"
    )
    del tmp_path
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=at_most(30)
    )
    assert "install cuse-netmap-dpdk, or libdpdk-dev" in done.stdout


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[dpdk]\neal = 3", '[dpdk] eal: is 3, must be EAL options such as "--no-huge -m 512", or an array of them'),
        ('[dpdk]\neal = "\'open"', "must be EAL options"),
        ("[dpdk]\npoll_us = 1", "[dpdk] poll_us: is 1, must be a whole number from 20 to 1000000"),
        ("[dpdk]\nhuge = true", "[dpdk] huge: is no key here; allowed: eal, poll_us"),
        (
            dpdk.port("wan0", "x", descriptors=1),
            "[ports.wan0] descriptors: is 1, must be a whole number from 8 to 32768",
        ),
        (dpdk.port("wan0", "x", mtu=65536), "[ports.wan0] mtu: is 65536"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(tmp_path: Path, table: str, said: str) -> None:
    """docs/configuration.md: every error names its place and what is allowed."""
    path = tmp_path / "config.toml"
    path.write_text(table)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert said in str(error.value)


def test_eal_options_are_words_or_an_array(tmp_path: Path) -> None:
    """docs/configuration.md: as a shell splits them."""
    path = tmp_path / "config.toml"
    wanted = ("--no-huge", "-m", "64", "--file-prefix=a b")
    for spelled in ("\"--no-huge -m 64 '--file-prefix=a b'\"", '["--no-huge", "-m", "64", "--file-prefix=a b"]'):
        path.write_text(f"[dpdk]\neal = {spelled}")
        assert load(path).dpdk.eal == wanted
