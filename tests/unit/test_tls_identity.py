"""The controller's authority and certificate: made once, kept, private, renewed in time, and never half-made."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from sdn.controller.authority import AUTHORITY_VALID_S, CLOCK_SKEW_S, SERVER_VALID_S, Authority
from sdn.controller.tls import AUTHORITY_FILE, RENEW_S, SERVER_FILE, Identity, open_identity
from sdn.model.certificate import parse_certificates, parse_fingerprint
from sdn.model.errors import HawseError, Kind
from sdn.service.trust import verifying_context

NOW_S = 1_700_000_000.0
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: what these tests make is of another time."""


class Clock:
    """It is when it is told to be."""

    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def greet(context: ssl.SSLContext, bundle: str) -> str:
    """A whole handshake in memory: the fingerprint that is shown to who trusts `bundle`. Raises: ssl.SSLError."""
    trusting = verifying_context(bundle)
    trusting.verify_flags |= NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    for end in (client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert client.version() == "TLSv1.3"
    return hashlib.sha256(client.getpeercert(binary_form=True) or b"").hexdigest()


def shown(identity: Identity) -> str:
    """To who trusts what hosts are given."""
    return greet(identity.server_context(), identity.bundle)


def test_made_once_and_kept(tmp_path: Path) -> None:
    first = open_identity(tmp_path / "tls", lambda: NOW_S)
    second = open_identity(tmp_path / "tls", lambda: NOW_S + 1e6)
    assert (second.fingerprint, second.bundle, second.server) == (first.fingerprint, first.bundle, first.server)
    assert len(first.fingerprint) == 64
    assert shown(first) == shown(second) == first.server.fingerprint


def test_nothing_older_than_tls_1_3_is_spoken(tmp_path: Path) -> None:
    identity = open_identity(tmp_path)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode, old.maximum_version = False, ssl.CERT_NONE, ssl.TLSVersion.TLSv1_2
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = old.wrap_bio(to_client, to_server)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        identity.server_context().wrap_bio(to_server, to_client, server_side=True).do_handshake()


def test_what_is_in_them(tmp_path: Path) -> None:
    identity = open_identity(tmp_path, lambda: NOW_S)
    (authority,) = identity.authority.trusted
    der = ssl.PEM_cert_to_DER_cert(authority.pem)
    assert identity.fingerprint == authority.fingerprint == hashlib.sha256(der).hexdigest()
    for read, valid_s in ((authority, AUTHORITY_VALID_S), (identity.server, SERVER_VALID_S)):
        known = x509.load_pem_x509_certificate(read.pem.encode())
        assert (read.subject, read.issuer) == (known.subject.public_bytes(), known.issuer.public_bytes())
        assert read.begins_s == known.not_valid_before_utc.timestamp() == NOW_S - CLOCK_SKEW_S
        assert read.ends_s == known.not_valid_after_utc.timestamp() == NOW_S + valid_s
        known.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem.encode()))


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_identity(tmp_path / "tls")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    paths = [tmp_path / "tls" / name for name in (AUTHORITY_FILE, SERVER_FILE)]
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    for path in paths:
        path.chmod(0o644)
    open_identity(tmp_path / "tls")
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]


def test_nothing_else_is_left_and_no_key_is_shown(tmp_path: Path) -> None:
    identity = open_identity(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [AUTHORITY_FILE, SERVER_FILE]
    assert "PRIVATE" not in identity.bundle + repr(identity.authority)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"])
def test_a_damaged_authority_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / AUTHORITY_FILE).write_bytes(content)
    with pytest.raises(HawseError, match="damaged") as caught:
        open_identity(tmp_path)
    assert caught.value.kind is Kind.INTERNAL
    assert "remove it" in caught.value.hint


def test_an_authority_with_the_key_of_another_is_said(tmp_path: Path) -> None:
    one, other = open_identity(tmp_path / "1").authority, open_identity(tmp_path / "2").authority
    (tmp_path / "1" / AUTHORITY_FILE).write_bytes(Authority(other.key, one.certificate).encode())
    with pytest.raises(HawseError, match="damaged: KEY_VALUES_MISMATCH"):
        open_identity(tmp_path / "1")


def test_an_authority_cut_anywhere_is_said_or_whole(tmp_path: Path) -> None:
    whole = open_identity(tmp_path)
    content = (tmp_path / AUTHORITY_FILE).read_bytes()
    for length in range(0, len(content), 37):
        (tmp_path / AUTHORITY_FILE).write_bytes(content[:length])
        with pytest.raises(HawseError, match="damaged"):
            open_identity(tmp_path)
    (tmp_path / AUTHORITY_FILE).write_bytes(content)
    assert open_identity(tmp_path).fingerprint == whole.fingerprint


def test_an_authority_that_is_gone_is_said(tmp_path: Path) -> None:
    open_identity(tmp_path)
    (tmp_path / AUTHORITY_FILE).unlink()
    with pytest.raises(HawseError, match="is gone, though it has signed"):
        open_identity(tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HawseError, match="cannot be used"):
        open_identity(tmp_path / "file" / "tls")


@pytest.mark.parametrize("wrong", ["missing", "empty", "cut", "foreign", "other key"])
def test_whatever_is_wrong_with_its_certificate_another_is_made(tmp_path: Path, wrong: str) -> None:
    identity, other = open_identity(tmp_path / "1"), open_identity(tmp_path / "2")
    path = tmp_path / "1" / SERVER_FILE
    content, foreign = path.read_text(), (tmp_path / "2" / SERVER_FILE).read_text()
    key = foreign[: foreign.index("-----BEGIN CERT")]
    made = {
        "empty": "",
        "cut": content[: len(content) // 2],
        "foreign": foreign,
        "other key": key + content[content.index("-----BEGIN CERT") :],
    }
    path.write_text(made[wrong]) if wrong in made else path.unlink()
    again = open_identity(tmp_path / "1")
    assert again.fingerprint == identity.fingerprint
    assert shown(again) not in (identity.server.fingerprint, other.server.fingerprint)


@pytest.mark.parametrize(
    ("passed_s", "renewed"),
    [
        (0, False),
        (SERVER_VALID_S - RENEW_S - 1, False),
        (SERVER_VALID_S - RENEW_S + 1, True),
        (-CLOCK_SKEW_S - 1, True),
    ],
)
async def test_it_renews_itself_long_before_its_end_on_the_live_context(
    tmp_path: Path, passed_s: float, renewed: bool
) -> None:
    clock = Clock()
    identity = open_identity(tmp_path, clock)
    before, context = shown(identity), identity.server_context()
    clock.now_s += passed_s
    assert await identity.renew_if_due() is renewed
    assert identity.server_context() is context
    assert (shown(identity) != before) is renewed
    assert not await identity.renew_if_due()
    assert open_identity(tmp_path, clock).server == identity.server


async def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    clock = Clock()
    identity = open_identity(tmp_path, clock)
    clock.now_s += AUTHORITY_VALID_S - 86400
    assert await identity.renew_if_due()
    assert identity.server.ends_s == identity.authority.certificate.ends_s
    assert not await identity.renew_if_due()


async def test_who_trusts_the_old_or_the_new_authority_verifies_until_the_old_is_retired(tmp_path: Path) -> None:
    identity = open_identity(tmp_path)
    for _ in range(3):
        old = identity.bundle
        await identity.rotate()
        new = identity.authority.certificate.pem
        assert identity.bundle == new + old
        for bundle in (old, new, identity.bundle):
            assert greet(identity.server_context(), bundle) == identity.server.fingerprint
            assert greet(open_identity(tmp_path).server_context(), bundle) == identity.server.fingerprint
        with pytest.raises(HawseError, match="replaced already") as caught:
            await identity.rotate()
        assert caught.value.facts["before"] == parse_certificates(old)[0].fingerprint
        await identity.retire()
        assert identity.bundle == new == open_identity(tmp_path).bundle
        assert greet(identity.server_context(), new) == identity.server.fingerprint
        with pytest.raises(ssl.SSLCertVerificationError):
            greet(identity.server_context(), old)
        await identity.retire()  # there is none


async def test_killed_between_the_two_files_the_next_start_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rotation and a retirement that wrote the authority, and not the certificate."""
    first = open_identity(tmp_path).bundle
    server = (tmp_path / SERVER_FILE).read_bytes()
    identity = open_identity(tmp_path)
    await identity.rotate()
    (tmp_path / SERVER_FILE).write_bytes(server)
    identity = open_identity(tmp_path)
    assert [greet(identity.server_context(), bundle) for bundle in (first, identity.bundle)]
    server = (tmp_path / SERVER_FILE).read_bytes()
    await identity.retire()
    (tmp_path / SERVER_FILE).write_bytes(server)
    identity = open_identity(tmp_path)
    assert shown(identity)
    with pytest.raises(ssl.SSLCertVerificationError):
        greet(identity.server_context(), first)


async def test_a_full_disk_leaves_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = open_identity(tmp_path)
    before = (identity.bundle, shown(identity))

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("sdn.controller.tls.write_durably", full)
        for change in (identity.rotate, identity.renew):
            with pytest.raises(HawseError, match="No space left"):
                await change()
    assert (identity.bundle, shown(identity)) == before
    await asyncio.gather(identity.rotate(), identity.renew())
    assert shown(identity) not in before


def test_fingerprints_and_bundles_that_are_none() -> None:
    assert parse_fingerprint("AB:" * 31 + "ab") == "ab" * 32
    for text in ("", "ab", "g" * 64):
        with pytest.raises(HawseError, match="not a SHA-256"):
            parse_fingerprint(text)
    with pytest.raises(HawseError, match="no certificate"):
        parse_certificates("text")
