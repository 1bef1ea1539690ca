"""The controller's TLS identity: its authority, and the certificate that it shows, which renews itself.

Two files in one directory. `authority.pem` is made at the first start and is what everybody pins. `server.pem` follows
from it: whatever is wrong with that one, and whenever it is old, another is made; the listeners' context takes it up
while it lives, so that connections that are open stay and new ones see the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from sdn.controller.authority import Authority, issue, make_authority, succeed
from sdn.controller.bell import Bell
from sdn.model.certificate import Certificate, parse_certificates
from sdn.model.errors import HawseError, Kind, conflict
from sdn.service.durable import write_durably

AUTHORITY_FILE, SERVER_FILE = "authority.pem", "server.pem"
RENEW_S = 60 * 86400
"""Before its end, a certificate is replaced; a controller that was off for less never shows an old one."""
CHECK_S = 3600.0


class Identity:
    """One per controller process; see `open_identity`. Its methods are called on one loop."""

    def __init__(self, directory: Path, authority: Authority, clock: Callable[[], float]) -> None:
        """The directory is there, and in it the authority."""
        self._path = directory / SERVER_FILE
        self._authority_path = directory / AUTHORITY_FILE
        self._authority = authority
        self._clock = clock
        self._lock = asyncio.Lock()
        self.replaced = Bell()
        """Rings when other authorities are to be trusted."""
        self._context = _server_context()
        self._switches: tuple[tuple[str, ...], ssl.SSLContext] | None = None
        self.server = self._open_server()

    @property
    def authority(self) -> Authority:
        """What is pinned, and its key."""
        return self._authority

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER of the (newest) authority's certificate, in lower-case hex."""
        return self._authority.certificate.fingerprint

    @property
    def bundle(self) -> str:
        """The certificates of all authorities that are to be trusted, the newest first, in PEM."""
        return "".join(one.pem for one in self._authority.trusted)

    def server_context(self) -> ssl.SSLContext:
        """For the listeners: TLS 1.3, always with the newest certificate."""
        return self._context

    def switch_context(self) -> ssl.SSLContext:
        """For switches without an agent, who show a certificate of an authority that is trusted now.

        For connections from now on: another one is made when the certificates have changed. TLS 1.2 at least, for that
        is all that an Open vSwitch before 3.4 speaks unless it is told otherwise.
        """
        showing = (self.server.fingerprint, *(one.fingerprint for one in self._authority.trusted))
        if self._switches is None or self._switches[0] != showing:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.bundle)
            context.load_cert_chain(self._path)
            self._switches = showing, context
        return self._switches[1]

    async def renew(self) -> None:
        """A new certificate of the controller's own. Raises: INTERNAL where it cannot be kept; then nothing changed."""
        async with self._lock:
            await self._replace(self._authority)

    async def renew_if_due(self) -> bool:
        """Whether it was, and is now; to be called every CHECK_S. Raises: as `renew`."""
        if self._is_good(self.server):
            return False
        await self.renew()
        return True

    async def rotate(self) -> None:
        """A new authority; who trusts the one before trusts what is shown from now on as well.

        Raises: CONFLICT while there are two; INTERNAL.
        """
        async with self._lock:
            if self._authority.before is not None:
                raise conflict(
                    "the authority was replaced already, and the one before is still trusted",
                    "retire that first: hawse certificate retire",
                    fingerprint=self.fingerprint,
                    before=self._authority.before.fingerprint,
                )
            await self._replace(await asyncio.to_thread(succeed, self._authority, self._clock()))

    async def retire(self) -> None:
        """End the authority before: who trusts that alone is refused from now on. None there is fine."""
        async with self._lock:
            if self._authority.before is not None:
                await self._replace(self._authority.alone())

    async def _replace(self, authority: Authority) -> None:
        """Killed in between, the next start makes the certificate that is missing."""
        with _explained(self._path):
            await asyncio.to_thread(self._write, authority)
            self._context.load_cert_chain(self._path)  # not in a thread: the loop may be in a handshake with it
            before, self._authority = self._authority, authority
            self.server = parse_certificates(self._path.read_text("ascii"))[0]
        if authority is not before:
            self.replaced.ring()

    def _write(self, authority: Authority) -> None:
        if authority is not self._authority:
            write_durably(self._authority_path, authority.encode())
        write_durably(self._path, issue(authority, self._clock()))

    def _open_server(self) -> Certificate:
        with contextlib.suppress(HawseError, OSError, ValueError):  # whatever is wrong with it, the next one is right
            server, *others = parse_certificates(self._path.read_text("ascii"))
            if self._is_good(server) and tuple(others) == self._authority.intermediates:
                self._path.chmod(0o600)
                self._context.load_cert_chain(self._path)
                return server
        with _explained(self._path):
            self._write(self._authority)
            self._context.load_cert_chain(self._path)
            return parse_certificates(self._path.read_text("ascii"))[0]

    def _is_good(self, server: Certificate) -> bool:
        """Whether it is the authority's, and will be good for a while."""
        authority, now_s = self._authority.certificate, self._clock()
        lasts = server.ends_s - now_s >= RENEW_S or (server.ends_s == authority.ends_s and now_s < server.ends_s)
        return server.issuer == authority.subject and server.begins_s <= now_s and lasts


@contextlib.asynccontextmanager
async def renewing(identity: Identity, log: Any) -> AsyncIterator[None]:
    """While inside, the certificate is replaced in time."""

    async def watch() -> None:
        while True:
            try:
                if await identity.renew_if_due():
                    log.info("certificate renewed", fingerprint=identity.server.fingerprint)
            except HawseError as error:  # there is a month left for somebody to make room
                log.error("certificate not renewed", reason=error.message, hint=error.hint)
            await asyncio.sleep(CHECK_S)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def open_identity(directory: Path, clock: Callable[[], float] = time.time) -> Identity:
    """The identity kept in `directory`, made now if there is none. `clock`: seconds since the epoch.

    Raises: INTERNAL where a file is damaged, lost, or cannot be read or written.
    """
    path = directory / AUTHORITY_FILE
    with _explained(path):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            if (directory / SERVER_FILE).exists():  # made after the authority, always
                raise HawseError(
                    Kind.INTERNAL,
                    f"the controller's authority {path} is gone, though it has signed {directory / SERVER_FILE}",
                    hint="restore it, or remove that, too, to have both made anew: all hosts then have to join again",
                )
            write_durably(path, make_authority(clock()).encode())
        path.chmod(0o600)
        authority = _read_authority(path)
    return Identity(directory, authority, clock)


def _read_authority(path: Path) -> Authority:
    """Raises: INTERNAL, OSError."""
    try:
        authority = Authority.parse(path.read_text("ascii"))
        _server_context().load_cert_chain(path)  # proves that the key can be read and belongs to the certificate
        return authority
    except ssl.SSLError as error:  # an OSError too, so it goes first
        raise _damaged(path, error.reason or "not a key with its certificate") from None
    except HawseError as error:
        raise _damaged(path, error.message) from None
    except ValueError as error:  # not ASCII
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> HawseError:
    return HawseError(
        Kind.INTERNAL,
        f"the controller's authority {path} is damaged: {why}",
        hint=f"restore it, or remove it and {SERVER_FILE} to have both made anew: all hosts then have to join again",
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """An error of the disk as a sentence."""
    try:
        yield
    except OSError as error:
        raise HawseError(
            Kind.INTERNAL,
            f"the controller's key {path} cannot be used: {error.strerror or error}",
            hint="look at its permissions, and at the room on its disk",
        ) from None


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a host connects rarely: resumption would only keep secrets around
    return context
