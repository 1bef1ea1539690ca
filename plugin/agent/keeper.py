"""The keeper: agent.json as the controller changes it, on the disk first and then in use."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from plugin.agent.configuration import Configuration
from sdn.model.certificate import parse_certificates
from sdn.model.errors import HawseError, Kind
from sdn.model.stream import Credentials
from sdn.service.durable import write_durably
from sdn.service.log import get_logger
from sdn.service.trust import verifying_context


class Keeper:
    """One per agent. Killed at any point, the file is whole: as it was, or as it was told to be."""

    def __init__(self, path: Path, configuration: Configuration, use: Callable[[Configuration], None]) -> None:
        """`path`: where `configuration` was read; `use` is called with each one that follows, once it is kept."""
        self.configuration = configuration
        self._path = path
        self._use = use
        self._lock = asyncio.Lock()
        self._log = get_logger("credentials")

    @property
    def authorities(self) -> tuple[str, ...]:
        """Fingerprints of those that are trusted, the newest first."""
        return tuple(one.fingerprint for one in parse_certificates(self.configuration.authority))

    @property
    def secret_sha256(self) -> bytes:
        """Of the secret that is kept."""
        return hashlib.sha256(self.configuration.secret.encode()).digest()

    async def keep(self, credentials: Credentials) -> None:
        """Hold them. In the order of the calls, and to the end, though the caller be gone.

        Raises: INVALID (no certificates), UNAVAILABLE (the disk); then the ones before are used still.
        """
        await asyncio.shield(asyncio.ensure_future(self._keep(credentials)))

    async def _keep(self, credentials: Credentials) -> None:
        async with self._lock:
            changed = self._changed(credentials)
            try:
                await asyncio.to_thread(write_durably, self._path, msgspec.json.encode(changed) + b"\n")
            except OSError as error:
                self._log.error("not kept", path=str(self._path), reason=error.strerror)
                raise HawseError(
                    Kind.UNAVAILABLE,
                    f"the host cannot keep its credentials in {self._path}: {error.strerror or error}",
                    hint="look at that directory's permissions, and at the room on its disk",
                ) from None
            self._log.info(
                "kept",
                authority=changed.authority != self.configuration.authority,
                secret=changed.secret != self.configuration.secret,
            )
            self.configuration = changed
            self._use(changed)

    def _changed(self, credentials: Credentials) -> Configuration:
        authority = credentials.authority or self.configuration.authority
        verifying_context(authority)  # what could not be used must not be kept
        return msgspec.structs.replace(
            self.configuration,
            authority=authority,
            fingerprint=parse_certificates(authority)[0].fingerprint,
            secret=credentials.secret or self.configuration.secret,
        )
