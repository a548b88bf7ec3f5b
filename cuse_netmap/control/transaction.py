# SPDX-License-Identifier: BSD-2-Clause
"""One NIOCCTRL as bytes in the program's memory; what the request means is not looked at here.

Header, body and options are read once, checked as netmap checks them, and written back.
"""

import errno
from dataclasses import dataclass, field
from typing import Protocol

from cuse_netmap.control import bodies
from cuse_netmap.control.requests import (
    API,
    CTRL_VERSIONS,
    OPTION_SIZES,
    Header,
    Option,
    OptionType,
)
from cuse_netmap.errors import Refused

# netmap reads a request into a buffer of this size: two pointers to start with and a table of the known options,
# then the body and, for each option, a pointer, its header and its body.
KNOWN_TYPES = max(OptionType) + 1
BUFFER_SIZE = (2 + KNOWN_TYPES) * 8 + 4096 + KNOWN_TYPES * 8
OVERHEAD = (2 + KNOWN_TYPES) * 8
OPTION_COST = 8 + Option.size()
MOST = 4096  # body and options together


class Memory(Protocol):
    """The program's memory; both are Refused with EFAULT, or EINTR."""

    def read(self, address: int, size: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...


@dataclass
class GivenOption:
    """An option as read: where it lies, its header, its body, and the status that goes back (0 or an errno)."""

    address: int
    header: Option
    body: bytes = b""
    status: int = errno.EOPNOTSUPP

    @property
    def type(self) -> int:
        return self.header.reqtype


@dataclass
class Transaction:
    """A request on its way through: `answer` becomes the body. Both are today's structs, whatever the version."""

    memory: Memory
    address: int
    header: Header
    body: bytes = b""
    answer: bytes | None = None
    options: list[GivenOption] = field(default_factory=list)

    def option(self, kind: OptionType) -> GivenOption | None:
        return next((option for option in self.options if option.type == kind), None)

    def write_back(self, succeeded: bool) -> None:
        """The header and every option's header always; bodies only on success. Refused EFAULT."""
        if succeeded and self.answer is not None:
            old = bodies.from_today(self.header.version, self.header.reqtype, self.answer)
            self.memory.write(self.header.body, old)
        for option in self.options:
            option.header.status = option.status
            self.memory.write(option.address, option.header.encode())
            if succeeded and option.status == 0 and option.body:
                self.memory.write(option.address + Option.size(), option.body)
        self.memory.write(self.address, self.header.encode())


def begin(memory: Memory, address: int) -> Transaction:
    """Reads the header. Refused EFAULT."""
    return Transaction(memory, address, Header.decode(memory.read(address, Header.size())))


def read_rest(transaction: Transaction) -> None:
    """Checks the header and reads body and options. Refused EINVAL, EFAULT, EMSGSIZE."""
    header = transaction.header
    if header.version not in CTRL_VERSIONS:
        raise Refused(errno.EINVAL, f"API version {header.version}, this is {API}")
    if header.reserved:
        raise Refused(errno.EINVAL, "nr_reserved is not 0")
    size = bodies.body_size(header.version, header.reqtype)
    if bool(size) != bool(header.body):
        raise Refused(errno.EINVAL, f"nr_body is {header.body:#x}, the request has a body of {size} bytes")
    if size:
        body = transaction.memory.read(header.body, size)
        transaction.body = bodies.to_today(header.version, header.reqtype, body)
    _read_options(transaction, size)
    header.raw_name = header.raw_name[:-1] + b"\0"


def _read_options(transaction: Transaction, body_size: int) -> None:
    memory, seen = transaction.memory, dict[int, GivenOption]()
    used, total = OVERHEAD + body_size, body_size
    address = transaction.header.options
    while address:
        if used + OPTION_COST > BUFFER_SIZE:
            # The list may be a loop: netmap leaves the statuses alone then.
            transaction.options.clear()
            raise Refused(errno.EMSGSIZE, "the options do not end")
        option = GivenOption(address, Option.decode(memory.read(address, Option.size())), status=0)
        transaction.options.append(option)
        used += OPTION_COST
        total += Option.size()
        if option.type == 0:
            option.status = errno.EINVAL
            raise Refused(errno.EINVAL, "an option has type 0")
        if option.type < KNOWN_TYPES:
            if option.type in seen:
                option.status = seen[option.type].status = errno.EINVAL
                raise Refused(errno.EINVAL, f"option {OptionType(option.type).name} is given twice")
            seen[option.type] = option
            size = _body_size(option)
            too_much = max(option.header.size_given, total + size) > MOST
            if too_much or used + size > BUFFER_SIZE:
                raise Refused(errno.EMSGSIZE, f"body and options take more than {MOST} bytes")
            option.body = memory.read(address + Option.size(), size) if size else b""
            used += size
            total += size
        address = option.header.next
    for option in transaction.options:
        option.status = errno.EOPNOTSUPP


def _body_size(option: GivenOption) -> int:
    whole = OPTION_SIZES.get(option.type, option.header.size_given)
    return max(0, whole - Option.size())
