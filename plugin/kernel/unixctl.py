"""ovs-vswitchd's control socket, which `ovs-appctl` uses: what neither its database nor OpenFlow can say.

Source: ovs-appctl(8); unixctl-server of Open vSwitch: JSON-RPC, a command and its words for a method and its params.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from plugin.kernel.jsonrpc import JsonRpc, RefusedError, connect
from sdn.model.errors import HawseError, Kind, unavailable

PID_FILE: Final = "ovs-vswitchd.pid"
Command = tuple[str, ...]
_AT_ONCE: Final = 64


def find(directory: Path) -> Path:
    """The socket of the switch that runs with this directory. Raises: UNAVAILABLE where none does."""
    try:
        pid = int((directory / PID_FILE).read_text())
    except (OSError, ValueError):
        raise unavailable(
            f"ovs-vswitchd does not run: no process in {directory / PID_FILE}",
            "'systemctl status openvswitch-switch' tells why",
        ) from None
    return directory / f"ovs-vswitchd.{pid}.ctl"


class Control:
    """A connection to it. One event loop owns it."""

    def __init__(self, client: JsonRpc) -> None:
        self._client = client

    @classmethod
    async def connect(cls, path: Path, timeout_s: float = 2.0) -> Control:
        """Connect to the socket. Raises: UNAVAILABLE, DENIED."""
        return cls(await connect(path, "ovs-vswitchd", lambda _method, _params: None, lambda _error: None, timeout_s))

    async def run(self, *words: str, timeout_s: float = 2.0) -> str:
        """One command; what it prints. Raises: INTERNAL (it is refused), UNAVAILABLE."""
        printed = (await self.run_all([words], timeout_s))[0]
        if isinstance(printed, HawseError):
            raise printed
        return printed

    async def run_all(self, commands: Sequence[Command], timeout_s: float = 2.0) -> list[str | HawseError]:
        """Many, some of them under way at once; what each prints, or why it is refused. Raises: UNAVAILABLE."""
        printed: list[str | HawseError] = []
        try:
            async with asyncio.timeout(timeout_s):
                for start in range(0, len(commands), _AT_ONCE):
                    printed += await self._run_some(commands[start : start + _AT_ONCE])
        except TimeoutError:
            raise unavailable(f"{self._client.name} does not answer within {timeout_s:g} s") from None
        return printed

    async def _run_some(self, commands: Sequence[Command]) -> list[str | HawseError]:
        begun = [self._client.call(words[0], words[1:]) for words in commands]
        printed: list[str | HawseError] = []
        for words, answer in zip(commands, await asyncio.gather(*begun, return_exceptions=True), strict=True):
            if isinstance(answer, RefusedError):
                text = f"ovs-vswitchd refuses '{' '.join(words)}': {str(answer).strip()}"
                printed.append(HawseError(Kind.INTERNAL, text))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                printed.append(str(answer))
        return printed

    def close(self) -> None:
        """Hang up. Twice is fine."""
        self._client.close()
