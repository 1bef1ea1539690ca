"""The controller's TLS identity: a key and a self-signed certificate, made at the first start and pinned by its hash.

Hosts do not check names or authorities: they know the SHA-256 of the certificate's DER (it travels with the host's
credential), so no host accepts another controller, and nothing has to be installed anywhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from sdn.model.errors import HawseError, Kind

FILE = "controller.pem"
"""Key and certificate in one file: they cannot be from two different starts, whenever the first one was killed."""
VALID_S = 10 * 365 * 86400
CLOCK_SKEW_S = 86400
"""The certificate is valid from a day before it was made: a host's clock may be behind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """`fingerprint`: SHA-256 of the certificate's DER, in lower-case hex."""

    path: Path
    fingerprint: str

    def server_context(self) -> ssl.SSLContext:
        """For the listeners of host streams: TLS 1.2 at least, 1.3 wherever the peer can."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.path)
        context.num_tickets = 0  # a host connects rarely: resumption would only keep secrets around
        return context


def open_identity(directory: Path, clock: Callable[[], float] = time.time) -> Identity:
    """The identity kept in `directory`, made now if there is none. `clock`: seconds since the epoch.

    Raises: INTERNAL where the file is damaged or cannot be read or written.
    """
    path = directory / FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_atomically(path, _make(clock()))
        path.chmod(0o600)
        identity = Identity(path, fingerprint_of(path.read_text("ascii")))
        identity.server_context()  # proves that the key can be read and belongs to the certificate
        return identity
    except ssl.SSLError as error:  # an OSError too, so it goes first
        raise _damaged(path, error.reason or "not a key with its certificate") from None
    except OSError as error:
        raise HawseError(
            Kind.INTERNAL,
            f"the controller's key {path} cannot be used: {error.strerror}",
            hint="look at its permissions",
        ) from None
    except ValueError as error:  # UnicodeDecodeError and binascii.Error are ValueErrors too
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, why: str) -> HawseError:
    return HawseError(
        Kind.INTERNAL,
        f"the controller's key {path} is damaged: {why}",
        hint="restore it, or remove it to have a new one made: every host then needs a new credential",
    )


def fingerprint_of(pem: str) -> str:
    """SHA-256 of the DER of the (first) certificate in a PEM text. Raises: ValueError."""
    start, end = pem.find(ssl.PEM_HEADER), pem.find(ssl.PEM_FOOTER)
    if start < 0 or end < start:
        raise ValueError("it holds no certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[start : end + len(ssl.PEM_FOOTER)])).hexdigest()


def _make(now_s: float) -> bytes:
    """PEM of a new P-256 key and its self-signed certificate."""
    import datetime

    from cryptography import x509  # 0.1 s: only the first start pays
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hawse controller")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(now_s - CLOCK_SKEW_S, datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(now_s + VALID_S, datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _write_atomically(path: Path, content: bytes) -> None:
    """Whole and durable, or not there; never readable by others, not even for a moment."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
