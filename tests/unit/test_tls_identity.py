"""The controller's certificate: made once, kept, private, and never half-made."""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from sdn.controller.tls import FILE, VALID_S, fingerprint_of, open_identity
from sdn.model.errors import HawseError, Kind

NOW_S = 1_700_000_000.0


def test_made_once_and_kept(tmp_path: Path) -> None:
    first = open_identity(tmp_path / "tls", lambda: NOW_S)
    assert open_identity(tmp_path / "tls", lambda: NOW_S + 1e6) == first
    assert len(first.fingerprint) == 64
    assert first.server_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_what_is_in_it(tmp_path: Path) -> None:
    identity = open_identity(tmp_path, lambda: NOW_S)
    pem = identity.path.read_bytes()
    certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :])
    der = ssl.PEM_cert_to_DER_cert(pem[pem.index(b"-----BEGIN CERT") :].decode())
    assert identity.fingerprint == hashlib.sha256(der).hexdigest()
    assert certificate.not_valid_after_utc.timestamp() == NOW_S + VALID_S
    assert certificate.not_valid_before_utc.timestamp() < NOW_S


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        identity = open_identity(tmp_path / "tls", lambda: NOW_S)
    finally:
        os.umask(before)
    assert stat.S_IMODE(identity.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(identity.path.parent.stat().st_mode) == 0o700
    identity.path.chmod(0o644)
    open_identity(tmp_path / "tls")
    assert stat.S_IMODE(identity.path.stat().st_mode) == 0o600


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    open_identity(tmp_path)
    assert os.listdir(tmp_path) == [FILE]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"])
def test_a_damaged_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(HawseError, match="damaged") as caught:
        open_identity(tmp_path)
    assert caught.value.kind is Kind.INTERNAL
    assert "remove it" in caught.value.hint


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HawseError, match="cannot be used"):
        open_identity(tmp_path / "file" / "tls")


def test_no_certificate() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        fingerprint_of("text")
