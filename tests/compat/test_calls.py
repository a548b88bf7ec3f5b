# SPDX-License-Identifier: BSD-2-Clause
"""What the seven calls do, as compat_netmap.h has it: each case of calls_*.c, in a process of its own."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.clients import HERE
from tests.support.inside import EAL, devices
from tests.support.patience import at_most

CASES = {
    case: source.stem.removeprefix("calls_")
    for source in sorted((HERE / "compat" / "clients").glob("calls_*.c"))
    for case in re.findall(r"CASE\((\w+)\)", source.read_text())
}
# What each proves, in the words of the issue.
SENTENCES = {
    "before_init": "calls before init are refused, each with its errno",
    "init_twice": "a second init, of all or of a port, is refused and does no harm",
    "bad_conf": "what no memory can be made of is EINVAL, from the program and from the environment",
    "bad_port": "unknown ports and impossible configurations are refused, and the port stays good",
    "taken_port": "a port that another has is EBUSY, in DPDK and in netmap",
    "no_memory": "no buffers and no mbufs are ENOMEM",
    "names": "a port is its number or its name, with or without netmap:",
    "requests": "NIOCCTRL knows the requests a program needs, and the errno of the others",
    "options": "unknown options fail the request after the fact, offsets are honoured",
    "wrong_sizes": "a struct of another size is EINVAL",
    "legacy": "NIOCGINFO, NIOCREGIF and NIOCUNREGIF work as often as they are asked",
    "memory": "mmap honours length and offset, and shares what is asked for as private",
    "syncs": "what a sync sends the ring returns, of any length",
    "flags": "NS_MOREFRAG joins slots, NS_BUF_CHANGED and NS_REPORT are cleared",
    "one_ring": "single rings are bound alone, of ports with different numbers of them",
    "timeouts": "poll honours no, some and endless patience, and ordinary descriptors beside ours",
    "wakes": "a poll that waits is woken by what arrives",
    "signals": "a signal ends a poll with EINTR",
    "several": "a port has several descriptors, which share its rings",
    "dups": "dup and fcntl give descriptors like the first, and the last one's close is the end",
    "libc_close": "close() and dup2() of libc end a descriptor as rte_netmap_close does",
    "forks": "a child keeps the port and is refused with ENXIO",
    "libc_waits": "poll() and epoll of libc wait for what NIOCRXSYNC then finds",
    "others": "paths and descriptors that are not netmap's are libc's",
    "interface": "a descriptor has the ioctls of network devices, answered from the port",
    "parameters": "the environment sets netmap's parameters",
    "sleepers": "one frame, or the end of the registration, wakes every thread that sleeps on the descriptor",
    "threads": "syncs and polls of many threads go on while the descriptor comes and goes",
}


def test_each_case_has_its_sentence() -> None:
    """One behaviour, one test."""
    assert CASES.keys() == SENTENCES.keys()


@pytest.mark.parametrize("case", CASES)
def test_the_calls_do_what_the_header_says(calls: Callable[[str], Path], case: str) -> None:
    """Issue, "The library"; ABI.md sections 4, 5, 7, 8, 10, 11, 15."""
    wires = devices("net_ring0", "net_null0", "net_null1")
    done = subprocess.run(
        [calls(CASES[case]), case, *EAL, *wires], capture_output=True, text=True, timeout=at_most(50), check=False
    )
    assert done.returncode == 0, f"{SENTENCES[case]}: {done.stdout}{done.stderr}"
    assert done.stdout == ""


def test_every_refusal_says_why(calls: Callable[[str], Path]) -> None:
    """Issue, bad input: an errno and a message."""
    wires = devices("net_ring0", "net_null0", "net_null1")
    done = subprocess.run(
        [calls("control"), "bad_port", *EAL, *wires], capture_output=True, text=True, timeout=at_most(50), check=False
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("netmap: ")]
    assert "netmap: rte_netmap_init_port(31): DPDK has no such port" in said
    assert "netmap: port 0: 3 TX and 1 RX rings, each may be 1 to 2" in said
    assert any(line.startswith("netmap: port 0: rte_eth_dev_configure: ") for line in said)
