"""Tokens: what is made is read again; whatever was cut, mistyped or meant for something else is told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdn.model.credential_text import hide_credentials
from sdn.model.errors import HawseError, Kind
from sdn.model.ids import ALPHABET
from sdn.model.token import DIGITS, Token, TokenKind, parse_token, token_id

tokens = st.builds(
    Token,
    st.sampled_from(TokenKind),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(0, (1 << 40) - 1).map(token_id),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
)
ONE = Token(TokenKind.JOIN, "ab" * 32, token_id(12345), "cd" * 16)


def refusal(text: str, kind: TokenKind = TokenKind.JOIN) -> str:
    with pytest.raises(HawseError) as caught:
        parse_token(text, kind)
    assert caught.value.kind is Kind.INVALID
    assert caught.value.hint
    assert len(text) < 12 or text[-12:] not in str(caught.value)  # it may be a secret
    return caught.value.message


@given(tokens)
def test_a_token_is_read_as_it_was_made(token: Token) -> None:
    assert parse_token(str(token), token.kind) == token
    assert parse_token(f"  {str(token)[:40]}\n{str(token)[40:]} ", token.kind) == token  # a terminal's line break
    assert token.secret not in repr(token)


@given(tokens, st.data())
def test_one_altered_character_is_noticed(token: Token, data: st.DataObject) -> None:
    text = str(token)
    at = data.draw(st.integers(len(text) - DIGITS, len(text) - 1))
    other = data.draw(st.sampled_from([one for one in ALPHABET if one != text[at]]))
    assert "altered" in refusal(text[:at] + other + text[at + 1 :], token.kind)


@given(tokens, st.integers(1, DIGITS))
def test_a_token_that_was_cut_says_so(token: Token, missing: int) -> None:
    assert "pasted in part" in refusal(str(token)[:-missing], token.kind)


def test_what_is_no_token_or_another_kinds() -> None:
    assert "starts with hawse-join-" in refusal("10.0.0.1:4780")
    assert "starts with hawse-join-" in refusal("")
    assert "a join token, and a user token is wanted" in refusal(str(ONE), TokenKind.USER)
    assert "pasted behind it" in refusal(str(ONE) + "aa")
    assert "no token has" in refusal(str(ONE)[:-1] + "!")


@given(tokens, st.text(), st.text(alphabet=" /'\"=&,\n"))
def test_nothing_secret_of_a_word_is_left_in_a_text(token: Token, before: str, after: str) -> None:
    text = hide_credentials(f"{before}'{token}{after}{token}")
    assert not any(str(token)[at : at + 12] in text for at in range(len("hawse-join-"), len(str(token)) - 12))
    assert "…" in text


def test_what_is_no_credential_is_left_in_a_text() -> None:
    host = "01hf7yat052r00k6agv0vfcxec"
    assert hide_credentials(f"host:{host}:{'ab' * 32} is refused") == f"host:{host}:… is refused"
    for text in (f"host {host}: {'ab' * 32}", "start with hawse-join-", "fd00::1", f"sha256:{'ab' * 32}"):
        assert hide_credentials(text) == text
