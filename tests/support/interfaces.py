# SPDX-License-Identifier: BSD-2-Clause
"""The ways in which a daemon can serve the kernel's interfaces."""

from dataclasses import dataclass
from pathlib import Path

CONFIG = """
[interfaces]
backend = "{backend}"
xdp_mode = "{mode}"
{more}
[ports.nil]
backend = "null"
"""
TAP = """
[ports.tap1]
backend = "tap"
slots = 16
"""


@dataclass(frozen=True)
class Way:
    """A backend, and of xdp the mode."""

    backend: str
    mode: str = "auto"

    def __str__(self) -> str:
        return self.backend if self.mode == "auto" else f"{self.backend} {self.mode}"

    @property
    def xdp(self) -> bool:
        return self.backend == "xdp"

    def options(self, folder: Path, interfaces: str = "", ports: str = "") -> list[str]:
        """Of a daemon; its configuration file, with these lines and tables, is made in the folder."""
        path = folder / "interfaces.toml"
        path.write_text(CONFIG.format(backend=self.backend, mode=self.mode, more=interfaces) + ports)
        return [f"--config={path}"]
