# SPDX-License-Identifier: BSD-2-Clause
"""Requests of random bytes, read from the memory of a real process: this one."""

import ctypes
import errno
import os
import random
from collections.abc import Iterator

import pytest

from cuse_netmap.control import legacy, transaction
from cuse_netmap.control.requests import (
    BODY_SIZES,
    Header,
    Legacy,
    Option,
    PoolsInfo,
    PortHeader,
    PortInfo,
    Record,
    Register,
)
from cuse_netmap.errors import Refused
from tests.support.ioctls import LIBC, Block

ROUNDS = 3000
ERRORS = {errno.EINVAL, errno.EFAULT, errno.EMSGSIZE}


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class OwnMemory:
    """This process, read by the system call that the daemon reads programs with; nothing is written."""

    def read(self, address: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        ours, theirs = Vector(ctypes.addressof(buffer), size), Vector(address, size)
        if LIBC.process_vm_readv(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) != size:
            raise Refused(errno.EFAULT, "unreadable")
        return buffer.raw

    def write(self, address: int, data: bytes) -> None:
        raise AssertionError(address, data)


@pytest.fixture
def memory() -> OwnMemory:
    return OwnMemory()


def chains(random_source: random.Random) -> Iterator[Block]:
    """Headers over bodies and options of which some are right, some wrong and some lead anywhere."""
    for _ in range(ROUNDS):
        arena = Block(random_source.randbytes(2048))
        places = [arena.address + 64 * random_source.randrange(16) for _ in range(6)]
        wrong = [0, 1, 0x1000, 0xFFFF800000000000, 0xFFFFFFFFFFFFFFFF, random_source.getrandbits(64)]
        data = bytearray(arena.data)
        for place, following in zip(places, [*places[1:], 0], strict=True):
            kind = random_source.choice([0, 1, 2, 3, 4, 5, 6, 99, random_source.getrandbits(32)])
            size = random_source.choice([0, 24, 40, 4096, random_source.getrandbits(64)])
            target = random_source.choice([following, following, following, random_source.choice(places + wrong)])
            start = place - arena.address
            data[start : start + 24] = Option(target, kind, 0, size).encode()
        arena.data = bytes(data)
        kind = random_source.randrange(18)
        body = random_source.choice([places[0], places[0], 0, *wrong])
        if kind not in BODY_SIZES and random_source.random() < 0.9:
            body = 0
        version = random_source.choice([12, 13, 14, 14, 14, 15, random_source.getrandbits(16)])
        reserved = random_source.choice([0, 0, 0, random_source.getrandbits(32)])
        options = random_source.choice([0, places[0], places[0], *wrong])
        name = random_source.randbytes(64)
        yield Block(Header(version, kind, reserved, name, options, body).encode(), arena)


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_are_read_or_refused_in_order(memory: OwnMemory, seed: int) -> None:
    """ABI.md 4.1: EINVAL, EFAULT or EMSGSIZE, and nothing else ever."""
    accepted = 0
    for header in chains(random.Random(seed)):  # noqa: S311 - the same ones each time
        given = transaction.begin(memory, header.address)
        try:
            transaction.read_rest(given)
        except Refused as refusal:
            assert refusal.errno in ERRORS  # noqa: PT017 - both outcomes are right
        else:
            accepted += 1
            assert len(given.body) == BODY_SIZES.get(given.header.reqtype, 0)
            assert {option.status for option in given.options} <= {errno.EOPNOTSUPP}
            assert len(given.header.name.encode("utf-8", "surrogateescape")) < 64
        assert len(given.options) < 200
    assert accepted > ROUNDS / 50


@pytest.mark.parametrize("record", [Header, Option, Register, PortInfo, PoolsInfo, PortHeader, Legacy])
def test_every_record_survives_decoding_and_encoding(record: type[Record]) -> None:
    """ABI.md 3: all bytes but the padding."""
    source = random.Random(record.__name__)  # noqa: S311
    for _ in range(200):
        once = record.decode(source.randbytes(record.size()))
        assert record.decode(once.encode()) == once


def test_any_legacy_request_means_something_or_is_refused() -> None:
    """ABI.md 5: every name, ring and mode fits what it is translated to."""
    source = random.Random(1)  # noqa: S311
    for _ in range(ROUNDS):
        asked = Legacy.decode(source.randbytes(60))
        name, request = legacy.to_register(asked)
        assert len(name.encode("utf-8", "surrogateescape")) <= 63
        assert Register.decode(request.encode()) == request
