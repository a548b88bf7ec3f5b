# SPDX-License-Identifier: BSD-2-Clause
"""NIOCCTRL before any request is looked at: header, body and options, their errors and their order (ABI.md 4.1)."""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

import pytest

from cuse_netmap.control.requests import NIOCCTRL, Header, Mode, Option, OptionType, Register, RequestType
from tests.support.ioctls import BAD_ADDRESS, Block, device, header, ioctl, option, register, status

pytestmark = pytest.mark.usefixtures("wires")

REGISTER, PORT_INFO = RequestType.REGISTER, RequestType.PORT_INFO_GET
BODY = Register().encode()
UNKNOWN = 77


@pytest.fixture
def fd() -> Iterator[int]:
    with device() as opened:
        yield opened


def is_free(fd: int) -> bool:
    """Nothing is registered on it: a REGISTER succeeds."""
    return register(fd, "quad")[0] == 0


# ---- the header


@pytest.mark.parametrize("version", [14, 15])
def test_versions_14_and_15_are_served(fd: int, version: int) -> None:
    """ABI.md 2: MIN 14, MAX 15. For 12 and 13, whose bodies differ, there is test_api_versions.py."""
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), version=version)) == 0


@pytest.mark.parametrize("version", [0, 1, 10, 11, 16, 0xFFFF])
def test_other_versions_are_invalid_and_come_back_as_sent(fd: int, version: int) -> None:
    """ABI.md 2: nr_version is not rewritten."""
    asked = header(REGISTER, "quad", Block(BODY), version=version)
    assert ioctl(fd, NIOCCTRL, asked) == errno.EINVAL
    assert Header.decode(asked.data).version == version


def test_the_version_is_looked_at_before_everything_else(fd: int) -> None:
    """ABI.md 4.1 step 1: no body is read, no option."""
    options = option(OptionType.CSB)
    asked = header(99, "quad", BAD_ADDRESS, options, version=11, reserved=1)
    assert ioctl(fd, NIOCCTRL, asked) == errno.EINVAL
    assert status(options) == 0xDEAD


@pytest.mark.parametrize("reserved", [1, 0x80000000, 0xFFFFFFFF])
def test_nr_reserved_must_be_zero_and_is_on_return(fd: int, reserved: int) -> None:
    """ABI.md 3.2 and 4.1 step 2."""
    asked = header(REGISTER, "quad", Block(BODY), reserved=reserved)
    assert ioctl(fd, NIOCCTRL, asked) == errno.EINVAL
    assert Header.decode(asked.data).reserved == 0
    assert ioctl(fd, NIOCCTRL, asked) == 0


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        *[(kind, 0) for kind in range(1, 9)],
        (RequestType.VALE_DELIF, 1),
        (RequestType.VALE_POLLING_ENABLE, 0),
        (RequestType.VALE_POLLING_DISABLE, 0),
        (RequestType.POOLS_INFO_GET, 0),
        (RequestType.SYNC_KLOOP_START, 0),
        (RequestType.SYNC_KLOOP_STOP, 1),
        (RequestType.CSB_ENABLE, 1),
        (0, 1),
        (16, 1),
        (0xFFFF, 1),
    ],
)
def test_a_body_stands_exactly_where_one_belongs(fd: int, kind: int, result: int) -> None:
    """ABI.md 4.1 step 3: 0 in the table is a request with a body. The wrong pointer is EINVAL, and never followed."""
    wrong = 0 if result == 0 else BAD_ADDRESS
    assert ioctl(fd, NIOCCTRL, header(kind, "quad", wrong)) == errno.EINVAL


@pytest.mark.parametrize("kind", [0, 16, 99, 0xFFFF])
def test_an_unknown_request_is_invalid(fd: int, kind: int) -> None:
    """ABI.md 4.1 step 8."""
    assert ioctl(fd, NIOCCTRL, header(kind, "quad")) == errno.EINVAL


@pytest.mark.parametrize("address", [BAD_ADDRESS, 0xFFFF800000000000, 0x7FFFFFFFF000, 0xFFFFFFFFFFFFFFFF])
def test_a_body_that_cannot_be_read_is_a_fault(fd: int, address: int) -> None:
    """ABI.md 4.1 step 4."""
    for kind in (REGISTER, PORT_INFO, RequestType.VALE_LIST):
        assert ioctl(fd, NIOCCTRL, header(kind, "quad", address)) == errno.EFAULT
    assert is_free(fd)


def test_a_body_that_ends_in_unmapped_memory_is_a_fault(fd: int) -> None:
    """ABI.md 4.1 step 4: a short transfer is EFAULT; one that just fits is none."""
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as memory:
        view = (ctypes.c_char * (2 * mmap.PAGESIZE)).from_buffer(memory)
        end = ctypes.addressof(view) + mmap.PAGESIZE
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), ctypes.c_size_t(mmap.PAGESIZE), 0)
        memory[mmap.PAGESIZE - 56 : mmap.PAGESIZE] = BODY
        assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", end - 55)) == errno.EFAULT
        assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", end - 56)) == 0
        del view


@pytest.mark.parametrize("address", [BAD_ADDRESS, 0xFFFF800000000000, 0x7FFFFFFFF000])
def test_a_header_that_cannot_be_read_is_a_fault(fd: int, address: int) -> None:
    """ABI.md 1."""
    assert ioctl(fd, NIOCCTRL, address) == errno.EFAULT


def test_the_header_comes_back_unchanged_on_success_and_on_failure(fd: int) -> None:
    """ABI.md 1: always copied back; name, pointers and type as sent."""
    body = Block(BODY)
    for name in ("missing", "quad"):
        asked = header(REGISTER, name, body)
        before = asked.data
        ioctl(fd, NIOCCTRL, asked)
        assert asked.data == before


def test_a_name_without_an_end_is_given_one(fd: int) -> None:
    """ABI.md 4.1 step 7."""
    asked = header(REGISTER, b"n" * 64, Block(BODY))
    assert ioctl(fd, NIOCCTRL, asked) == errno.ENXIO
    assert Header.decode(asked.data).raw_name == b"n" * 63 + b"\0"


def test_a_body_that_can_only_be_read_fails_the_answer(fd: int) -> None:
    """ABI.md 4.1 step 9: copying out is a fault."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        memory[:56] = BODY
        view = (ctypes.c_char * mmap.PAGESIZE).from_buffer(memory)
        address = ctypes.addressof(view)
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), mmap.PROT_READ)
        assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", address)) == errno.EFAULT
        assert memory[:56] == BODY
        del view


# ---- options


def test_an_option_nobody_handles_fails_register_after_undoing_it(fd: int) -> None:
    """ABI.md 4.1 step 10: EOPNOTSUPP; T: nro_next and nro_reqtype unchanged."""
    for kind, body in ((UNKNOWN, b""), (OptionType.SYNC_KLOOP_MODE, bytes(8))):
        last = option(UNKNOWN)
        first = option(kind, last, body=body)
        assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), first)) == errno.EOPNOTSUPP
        assert (status(first), status(last)) == (errno.EOPNOTSUPP, errno.EOPNOTSUPP)
        assert first.data[24:] == body
        decoded = Option.decode(first.data[:24])
        assert (decoded.next, decoded.reqtype) == (last.address, kind)
    with device() as other:  # what was exclusive is free again
        exclusive = Block(Register(flags=0x800).encode())
        assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", exclusive, option(UNKNOWN))) == errno.EOPNOTSUPP
        assert register(other, "quad")[0] == 0
    assert is_free(fd)


def test_the_error_of_the_request_comes_before_that_of_its_options(fd: int) -> None:
    """ABI.md 7: leftover options are the last thing that REGISTER looks at; statuses are written all the same."""
    left = option(UNKNOWN)
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "missing", Block(BODY), left)) == errno.ENXIO
    assert status(left) == errno.EOPNOTSUPP


def test_other_requests_do_not_mind_leftover_options(fd: int) -> None:
    """ABI.md 4.1 step 10: only REGISTER checks; the status says that nobody looked."""
    left = option(UNKNOWN)
    assert ioctl(fd, NIOCCTRL, header(PORT_INFO, "quad", Block(bytes(32)), left)) == 0
    assert status(left) == errno.EOPNOTSUPP


def test_an_option_of_type_0_is_invalid(fd: int) -> None:
    """ABI.md 4.1 step 5."""
    zero = option(0, option(UNKNOWN))
    first = option(UNKNOWN, zero)
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), first)) == errno.EINVAL
    assert status(zero) == errno.EINVAL
    assert is_free(fd)


@pytest.mark.parametrize("between", [0, 3])
def test_an_option_given_twice_is_invalid_both_times(fd: int, between: int) -> None:
    """ABI.md 4.1 step 5: both options get the status."""
    second = option(OptionType.CSB, body=bytes(16))
    chain = [second]
    for _ in range(between):
        chain.append(option(UNKNOWN, chain[-1]))
    first = option(OptionType.CSB, chain[-1], body=bytes(16))
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), first)) == errno.EINVAL
    assert (status(first), status(second)) == (errno.EINVAL, errno.EINVAL)


def test_unknown_options_may_be_given_many_times(fd: int) -> None:
    """ABI.md 4.1 step 5: they are skipped, each gets its status."""
    chain: list[Block] = [option(UNKNOWN)]
    for i in range(40):
        chain.append(option(UNKNOWN + i % 3, chain[-1]))
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), chain[-1])) == errno.EOPNOTSUPP
    assert {status(each) for each in chain} == {errno.EOPNOTSUPP}


def test_an_endless_list_of_unknown_options_is_too_long(fd: int) -> None:
    """ABI.md 4.1 step 5, T: infinite_options."""
    loop = option(UNKNOWN)
    loop.data = Option(loop.address, UNKNOWN, 0, 0).encode()
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), loop)) == errno.EMSGSIZE
    decoded = Option.decode(loop.data)
    assert (decoded.next, decoded.reqtype) == (loop.address, UNKNOWN)
    assert is_free(fd)


def test_an_endless_list_of_a_known_option_is_invalid(fd: int) -> None:
    """ABI.md 4.1 step 5, T: infinite_options2."""
    loop = option(OptionType.CSB, body=bytes(16))
    loop.data = Option(loop.address, OptionType.CSB, 0, 0).encode() + bytes(16)
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), loop)) == errno.EINVAL
    assert status(loop) == errno.EINVAL


def test_a_loop_of_two_is_found_too(fd: int) -> None:
    """ABI.md 4.1 step 5."""
    one, two = option(UNKNOWN), option(UNKNOWN + 1)
    one.data = Option(two.address, UNKNOWN, 0, 0).encode()
    two.data = Option(one.address, UNKNOWN + 1, 0, 0).encode()
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), one)) == errno.EMSGSIZE


def test_many_options_and_then_a_large_one_are_too_long(fd: int) -> None:
    """ABI.md 4.1 step 5, T: 99 unknown options, then 1000 bytes of eventfds."""
    chain = [option(OptionType.SYNC_KLOOP_EVENTFDS, size=1000, body=bytes(976))]
    for _ in range(99):
        chain.append(option(UNKNOWN, chain[-1]))
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), chain[-1])) == errno.EMSGSIZE
    assert is_free(fd)


@pytest.mark.parametrize("size", [4097, 0x80000000, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFE8, 0x100000018])
def test_an_option_that_says_it_is_huge_is_too_long(fd: int, size: int) -> None:
    """ABI.md 4.1 step 5: oversize EMSGSIZE; sizes do not wrap around."""
    asked = option(OptionType.SYNC_KLOOP_EVENTFDS, size=size, body=bytes(64))
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), asked)) == errno.EMSGSIZE


@pytest.mark.parametrize("size", [0, 1, 23, 24, 25, 31])
def test_an_option_that_says_it_is_tiny_is_no_trouble(fd: int, size: int) -> None:
    """ABI.md 3.3: nro_size of a variable option counts its header."""
    asked = option(OptionType.SYNC_KLOOP_EVENTFDS, size=size, body=bytes(8))
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), asked)) == errno.EOPNOTSUPP


@pytest.mark.parametrize("address", [BAD_ADDRESS, 0xFFFF800000000000, 0xFFFFFFFFFFFFFFFF])
def test_an_option_that_cannot_be_read_is_a_fault(fd: int, address: int) -> None:
    """ABI.md 4.1 step 5."""
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), address)) == errno.EFAULT
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", Block(BODY), option(UNKNOWN, address))) == errno.EFAULT
    assert is_free(fd)


def test_a_body_error_comes_before_the_options(fd: int) -> None:
    """ABI.md 4.1: step 4 before step 5."""
    left = option(0)
    assert ioctl(fd, NIOCCTRL, header(REGISTER, "quad", BAD_ADDRESS, left)) == errno.EFAULT
    assert status(left) == 0xDEAD


def test_an_unknown_request_walks_its_options_first(fd: int) -> None:
    """ABI.md 4.1: step 8 behind step 5."""
    left = option(UNKNOWN)
    assert ioctl(fd, NIOCCTRL, header(99, "quad", 0, left)) == errno.EINVAL
    assert status(left) == errno.EOPNOTSUPP


def test_any_name_is_looked_for_and_none_is_trouble(fd: int) -> None:
    """ABI.md 6: any bytes."""
    for byte in range(256):
        name = bytes([byte]) * 40
        body = Block(BODY)
        missing = errno.EINVAL if byte in b"{}" else errno.ENXIO
        assert ioctl(fd, NIOCCTRL, header(REGISTER, name, body)) == missing
        null = Block(Register(mode=Mode.NULL, mem_id=1).encode())
        with device() as other:
            assert ioctl(other, NIOCCTRL, header(REGISTER, name, null)) == 0


def test_the_name_of_the_program_is_no_trouble_either(fd: int) -> None:
    """Issue A, bad input: the log names the program, whatever it calls itself."""
    comm = f"/proc/self/task/{os.getpid()}/comm"
    with open(comm, "rb") as file:  # noqa: PTH123 - bytes that are no text
        before = file.read()
    try:
        for name in (b"\xff\xfe", b"a\nb\x1b[1m", b"("):
            with open(comm, "wb") as file:  # noqa: PTH123
                file.write(name)
            assert register(fd, "missing")[0] == errno.ENXIO
            with device() as other:
                assert register(other, "quad")[0] == 0
    finally:
        with open(comm, "wb") as file:  # noqa: PTH123
            file.write(before)
