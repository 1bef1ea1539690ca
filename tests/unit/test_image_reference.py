"""What images are called, and which one is meant."""

from __future__ import annotations

import pytest

from runtime.image.reference import find, is_digest, parse_name
from sdn.model.errors import HawseError, Kind

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
D = "sha256:ab" + "c" * 62
NAMES = {"web:1": A, "web:latest": B, "registry.example:5000/team/db:16": C, "team/web:2": C}
DIGESTS = {"sha256:" + "d" * 64: C, "sha256:" + "e" * 64: "sha256:" + "f" * 64}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web", "web:latest"),
        ("web:1.2_x-Y", "web:1.2_x-Y"),
        ("team/web", "team/web:latest"),
        ("Registry.Example:5000/a/b-c__d.e:1", "Registry.Example:5000/a/b-c__d.e:1"),
        ("localhost/x", "localhost/x:latest"),
    ],
)
def test_names(text, name):
    assert parse_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "web:",
        ":1",
        "Web",
        "web:a b",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a:" + "x" * 129,
        "x" * 256,
        "web\n",
        "../a",
        "ä",
    ],
)
def test_what_is_no_name(text):
    with pytest.raises(HawseError) as caught:
        parse_name(text)
    assert caught.value.kind is Kind.INVALID


def test_a_name_in_capitals_is_told_how():
    with pytest.raises(HawseError, match=r"did you mean web:1\?"):
        parse_name("WEB:1")


@pytest.mark.parametrize(
    ("reference", "image"),
    [
        ("web", B), ("web:1", A), (A, A), ("a" * 64, A), ("aaa", A), ("sha256:bb", B), ("db:16", C), ("team/db:16", C),
        ("web@sha256:" + "d" * 64, C), ("sha256:" + "d" * 64, C), ("abc", D), ("team/web:2", C), ("web:2", C),
    ],
)  # fmt: skip
def test_finds(reference, image):
    assert find(reference, NAMES, DIGESTS, [A, B, C, D]) == image


@pytest.mark.parametrize(
    ("reference", "kind", "says"),
    [
        ("a", Kind.NOT_FOUND, "hawse image load"),
        ("wbe", Kind.NOT_FOUND, "did you mean web:1?"),
        ("web:9", Kind.NOT_FOUND, "did you mean web:1?"),
        ("", Kind.NOT_FOUND, "there is no image ''"),
        ("\x00", Kind.NOT_FOUND, "there is no image"),
        ("sha256:" + "e" * 64, Kind.NOT_FOUND, "there is no image"),
        ("dd", Kind.NOT_FOUND, "there is no image"),
    ],
)
def test_does_not_find(reference, kind, says):
    with pytest.raises(HawseError) as caught:
        find(reference, NAMES, DIGESTS, [A, B, C, D])
    assert caught.value.kind is kind
    assert says in str(caught.value)


def test_several_are_meant():
    with pytest.raises(HawseError, match=r"2 images are meant by 'ab': abcc.*, abdd") as caught:
        find("ab", {}, {}, [D, "sha256:abd" + "d" * 61, A])
    assert caught.value.kind is Kind.INVALID
    names = {"one/web:1": A, "two/web:1": B}
    with pytest.raises(HawseError, match="2 images are meant by 'web:1': one/web:1, two/web:1"):
        find("web:1", names, {}, [A, B])


@pytest.mark.parametrize("value", [None, 1, "sha256:", "sha256:" + "g" * 64, "sha512:" + "a" * 64, A + "\n"])
def test_no_digest(value):
    assert not is_digest(value)
