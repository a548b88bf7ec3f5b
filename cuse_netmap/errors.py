# SPDX-License-Identifier: BSD-2-Clause
"""The one error type: a refusal with the errno a program gets and the reason an operator reads."""

import errno as codes
import os


class Refused(OSError):
    """`errno` goes to the program, `reason` to the log, unless the answer is an ordinary one that is `expected`."""

    def __init__(self, errno: int, reason: str, *, expected: bool = False) -> None:
        super().__init__(errno, reason)
        self.reason = reason
        self.expected = expected

    @property
    def code(self) -> str:
        """The errno's name, such as EBUSY."""
        number = self.errno or 0
        if number == codes.EOPNOTSUPP:
            return "EOPNOTSUPP"  # Python calls it by its other name
        return codes.errorcode.get(number, os.strerror(number))


class SetupError(Exception):
    """The daemon or a command cannot start; the text is one sentence with the remedy."""


def remedy(error: OSError) -> str:
    """What mends it, to follow the reason; "" where the reason has to do."""
    return ": run it as root (sudo)" if error.errno in (codes.EPERM, codes.EACCES) else ""
