# SPDX-License-Identifier: BSD-2-Clause
"""The daemon's side of the preloaded helper: gives packet memory to whoever brings a token, once.

A token comes from an ioctl on a registered descriptor of the device, so only who may use the device gets the memory.
What both sides say is stated in include/netmap_helper.h; the other side is preload/.
"""

import logging
import os
import secrets
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cuse_netmap.errors import SetupError
from cuse_netmap.processes import command_of

if TYPE_CHECKING:
    from cuse_netmap._core import Region

log = logging.getLogger(__name__)

FOLDER = Path("/run/cuse-netmap")
DEVICES = Path("/sys/class/cuse")
TOKEN_SIZE = 16
TOKEN = struct.Struct(f"{TOKEN_SIZE}s108s")
MEMORY = struct.Struct("<Q")
NIOCHELPERTOKEN = 2 << 30 | TOKEN.size << 16 | ord("i") << 8 | 0xF0

PATIENCE = 2.0  # seconds for a token once connected
TOKENS_OF_A_FILE = 8  # the newest
CALLERS = 16  # connections that are listened to at a time


def clear_stale_sockets() -> None:
    """Removes the sockets of daemons that died: a socket stands only while its CUSE device does.

    Those of a `run` too, whose number no other will have. OSError.
    """
    for path in FOLDER.glob("*.sock"):
        if not Path(DEVICES, path.stem).exists():
            path.unlink(missing_ok=True)


class HelperServer:
    """A socket for one device, and the tokens that are out."""

    def __init__(self, device: str, region: "Region", node: Path) -> None:
        self.region = region
        self.path = FOLDER / f"{device}.sock"
        self.tokens: dict[bytes, int] = {}
        self.lock = threading.Lock()
        self.closed = False
        self.callers = threading.BoundedSemaphore(CALLERS)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.node = os.open(node, os.O_PATH)  # itself, also when a mount lies over it or a `run` has hidden it
            FOLDER.mkdir(mode=0o755, exist_ok=True)
            clear_stale_sockets()
            self.path.unlink(missing_ok=True)  # a dead daemon's: the device's name is ours by now
            self.socket.bind(str(self.path))
            self._follow_the_node()
        except OSError as error:
            raise SetupError(f"the helper's socket {self.path}: {error.strerror}") from error
        self.socket.listen(CALLERS)
        threading.Thread(target=self._listen, name="helper", daemon=True).start()

    def _follow_the_node(self) -> None:
        """Who may open the device may connect: an administrator or udev may have changed who that is. OSError."""
        node = os.fstat(self.node)
        os.chown(self.path, node.st_uid, node.st_gid)
        self.path.chmod(node.st_mode & 0o666)

    def token(self, file_id: int) -> bytes:
        """A netmap_helper_token for an open file, good once, until the file is released."""
        with suppress(OSError):  # somebody has removed the socket: no token helps
            self._follow_the_node()
        token = secrets.token_bytes(TOKEN_SIZE)
        with self.lock:
            mine = [known for known, owner in self.tokens.items() if owner == file_id]
            for old in mine[: len(mine) + 1 - TOKENS_OF_A_FILE]:
                del self.tokens[old]
            self.tokens[token] = file_id
        return TOKEN.pack(token, os.fsencode(self.path))

    def forget(self, file_id: int) -> None:
        """The file is released: what tokens it has not used are void."""
        with self.lock:
            self.tokens = {token: owner for token, owner in self.tokens.items() if owner != file_id}

    def close(self) -> None:
        self.closed = True
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        os.close(self.node)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError as error:
                if self.closed:
                    return
                log.warning("the helper's socket: %s", error.strerror)
                time.sleep(0.1)
                continue
            self.callers.acquire()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _redeem(self, token: bytes) -> tuple[int, int] | None:
        """A descriptor of the memory, to be closed, and its bytes; None for a token that is not good.

        While a token is good its file is registered, and the region stays what it is.
        """
        with self.lock:
            if self.tokens.pop(token, None) is None:
                return None
            return os.dup(self.region.memfd), self.region.size

    def _answer(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(PATIENCE)
                token = connection.recv(TOKEN_SIZE, socket.MSG_WAITALL)
                if (memory := self._redeem(token)) is not None:
                    memfd, size = memory
                    try:
                        socket.send_fds(connection, [MEMORY.pack(size)], [memfd])
                    finally:
                        os.close(memfd)
                else:
                    caller = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
                    pid, _, _ = struct.unpack("iII", caller)
                    log.warning(
                        "refused: pid %d (%s): mmap: a token that is not good, or not any more", pid, command_of(pid)
                    )
        except OSError:
            pass  # the program has gone, or keeps silent
        finally:
            self.callers.release()
