"""The authority: a key that signs the certificates of this fabric's controllers, and nothing else.

Hosts and users pin it by its hash, so no name is checked and nothing has to be installed anywhere. It is replaced
without an outage: the new one is signed by itself and, *crossed*, by the one before. A controller then shows its own
certificate and the crossed one, which lead who trusts either of the two to what they trust; the one before is retired
when everybody has the new one.
"""

from __future__ import annotations

import dataclasses
import datetime
from typing import TYPE_CHECKING

from sdn.model.certificate import Certificate, parse_certificates
from sdn.model.errors import invalid

if TYPE_CHECKING:  # 0.1 s, which only who makes a certificate pays
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

AUTHORITY_VALID_S = 10 * 365 * 86400
SERVER_VALID_S = 90 * 86400
CLOCK_SKEW_S = 86400
"""What is made is valid from a day before: a host's clock may be behind."""


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """`key` in PEM. `crossed` is the certificate's twin, signed by `before`; both are there until that is retired."""

    key: str = dataclasses.field(repr=False)
    certificate: Certificate
    crossed: Certificate | None = None
    before: Certificate | None = None

    @property
    def trusted(self) -> tuple[Certificate, ...]:
        """What who connects is to trust, the newest first."""
        return (self.certificate,) if self.before is None else (self.certificate, self.before)

    @property
    def intermediates(self) -> tuple[Certificate, ...]:
        """What a controller shows behind its own certificate."""
        return () if self.crossed is None else (self.crossed,)

    def encode(self) -> bytes:
        """The key and all certificates, to keep in one file: they cannot be of two different moments."""
        certificates = (self.certificate, *self.intermediates, *self.trusted[1:])
        return (self.key + "".join(one.pem for one in certificates)).encode()

    @classmethod
    def parse(cls, text: str) -> Authority:
        """What `encode` has made. Raises: INVALID; whether the key belongs to it is not looked at."""
        key = text[: text.find("-----BEGIN CERTIFICATE")]
        match parse_certificates(text):
            case (certificate,):
                return cls(key, certificate)
            case (certificate, crossed, before) if (crossed.subject, crossed.issuer) == (
                certificate.subject,
                before.subject,
            ):
                return cls(key, certificate, crossed, before)
            case _:
                raise invalid("its certificates do not belong together")

    def alone(self) -> Authority:
        """This one with the one before retired."""
        return Authority(self.key, self.certificate)


def make_authority(now_s: float) -> Authority:
    """The first of a fabric."""
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(key)
    return Authority(_encode_key(key), _read(_ca(key, name, key, name, now_s, path_length=1)))


def succeed(old: Authority, now_s: float) -> Authority:
    """A new authority that who trusts `old` trusts, too. `old` has no one before it."""
    assert old.before is None
    fresh = make_authority(now_s)
    signer, key = _load_key(old.key), _load_key(fresh.key)
    crossed = _ca(key, _name(key), signer, _name(signer), now_s, path_length=0, until_s=old.certificate.ends_s)
    return Authority(fresh.key, fresh.certificate, _read(crossed), old.certificate)


def issue(authority: Authority, now_s: float) -> bytes:
    """A controller's own new key, its certificate, and what leads from there to whatever is trusted; PEM, in a row."""
    from cryptography.x509.oid import ExtendedKeyUsageOID

    purpose, valid_s = ExtendedKeyUsageOID.SERVER_AUTH, SERVER_VALID_S
    key, certificate = _leaf(authority, "hawse controller", "controller.hawse.internal", purpose, now_s, valid_s)
    return (key + "".join(one.pem for one in (certificate, *authority.intermediates))).encode()


def issue_switch(authority: Authority, name: str, now_s: float) -> str:
    """A switch's new key and its certificate, PEM, in a row.

    It proves who connects, never who is connected to: a switch is no controller. Nobody renews it, so it is valid as
    long as the authority.
    """
    from cryptography.x509.oid import ExtendedKeyUsageOID

    purpose, valid_s = ExtendedKeyUsageOID.CLIENT_AUTH, float(AUTHORITY_VALID_S)
    key, certificate = _leaf(authority, f"hawse switch {name}"[:64], "switch.hawse.internal", purpose, now_s, valid_s)
    return key + certificate.pem


def _leaf(
    authority: Authority, name: str, domain: str, purpose: x509.ObjectIdentifier, now_s: float, valid_s: float
) -> tuple[str, Certificate]:
    """A new key in PEM, and its certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key, signer = ec.generate_private_key(ec.SECP256R1()), _load_key(authority.key)
    certificate = (
        _builder(key, x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), signer)
        .not_valid_before(_moment(now_s - CLOCK_SKEW_S))
        .not_valid_after(_moment(min(now_s + valid_s, authority.certificate.ends_s)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _encode_key(key), _read(certificate)


def _ca(
    key: ec.EllipticCurvePrivateKey,
    name: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    now_s: float,
    *,
    path_length: int,
    until_s: float | None = None,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    assert issuer == _name(signer)
    return (
        _builder(key, name, signer)
        .not_valid_before(_moment(now_s - CLOCK_SKEW_S))
        .not_valid_after(_moment(now_s + AUTHORITY_VALID_S if until_s is None else until_s))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(signer, hashes.SHA256())
    )


def _builder(
    key: ec.EllipticCurvePrivateKey, name: x509.Name, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    from cryptography import x509

    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(_name(signer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(key: ec.EllipticCurvePrivateKey) -> x509.Name:
    """Another name for each authority: a chain is built by names first."""
    from cryptography import x509

    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"hawse authority {digest[:16]}")])


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # who opened it has looked
    return key


def _encode_key(key: ec.EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _read(certificate: x509.Certificate) -> Certificate:
    from cryptography.hazmat.primitives import serialization

    (read,) = parse_certificates(certificate.public_bytes(serialization.Encoding.PEM).decode())
    return read


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
