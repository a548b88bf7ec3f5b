# SPDX-License-Identifier: BSD-2-Clause
"""System calls on the device from C programs, of which each name of tests/clients/calls.c is one test."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.program import run

pytestmark = pytest.mark.usefixtures("quiet")

Client = Callable[..., Path]


@pytest.fixture
def quiet(daemon: Daemon) -> None:
    """No IPv6 on the host's side, which would announce itself."""
    del daemon
    Path("/proc/sys/net/ipv6/conf/tap0/disable_ipv6").write_text("1")


def test_syncs_and_polls_before_register_fail_at_once(client_program: Client) -> None:
    """ABI.md section 1: not registered: ENXIO, POLLERR; a second REGISTER EBUSY."""
    run(client_program("calls"), "unregistered")


def test_ioctls_that_netmap_does_not_have_are_not_supported(client_program: Client) -> None:
    """ABI.md section 1: any other command EOPNOTSUPP, not ENOTTY."""
    run(client_program("calls"), "unknown")


def test_reading_writing_and_the_like_are_refused_or_harmless(client_program: Client) -> None:
    """ABI.md section 1: no read, no write; DESIGN.md section 2: they must not reach the memfd."""
    run(client_program("calls"), "other_calls")


def test_truncating_the_device_changes_nothing(client_program: Client) -> None:
    """ABI.md section 1: a character device has no length."""
    run(client_program("calls"), "truncation")


def test_a_descriptor_opened_read_only_registers_and_syncs(client_program: Client) -> None:
    """ABI.md section 1: nothing stops O_RDONLY."""
    run(client_program("calls"), "read_only")


def test_poll_and_select_wait_as_long_as_they_are_told(client_program: Client) -> None:
    """ABI.md section 11: poll(POLLOUT) on an idle port returns at once; poll(POLLIN) blocks."""
    run(client_program("calls"), "time_outs")


def test_a_child_syncs_and_polls_what_it_inherited(client_program: Client) -> None:
    """ABI.md section 15: fork: child shares."""
    run(client_program("calls"), "after_fork")


def test_a_copy_of_a_descriptor_keeps_the_port(client_program: Client) -> None:
    """ABI.md section 1: state is per open file description."""
    run(client_program("calls"), "copies")


def test_a_descriptor_passed_to_another_process_is_mapped_and_used_there(client_program: Client) -> None:
    """ABI.md section 15: fd passing; the state persists in the shared ring."""
    run(client_program("calls"), "passed_on")


def test_many_threads_sync_and_poll_one_descriptor(client_program: Client) -> None:
    """ABI.md section 15: one sync per ring at a time; a concurrent one is skipped silently."""
    run(client_program("calls"), "many_threads")


def test_bad_addresses_are_faults(client_program: Client) -> None:
    """ABI.md section 4.1: the body is read: EFAULT; a NULL body where there should be one: EINVAL."""
    run(client_program("calls"), "addresses")


def test_a_body_that_cannot_be_written_is_a_fault_after_the_fact(client_program: Client) -> None:
    """ABI.md section 1: always copy the struct back (bad pointer: EFAULT)."""
    run(client_program("calls"), "read_only_body")


def test_memory_that_vanishes_during_a_request_is_a_fault(client_program: Client) -> None:
    """DESIGN.md section 2: a short transfer is EFAULT."""
    run(client_program("calls"), "vanishing")


def test_a_static_program_maps_and_uses_the_device(daemon: Daemon, client_program: Client) -> None:
    """DESIGN.md section 2: FUSE passthrough: real shared memory, static programs too."""
    if daemon.mmap == "helper":
        pytest.skip("nothing can be preloaded into a static program: it needs the FUSE door")
    program = client_program("sync", static=True)
    headers = subprocess.run(["readelf", "-l", program], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers
    run(program, "tap0", 10)
    run(program, "null", 10)
