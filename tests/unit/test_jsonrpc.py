"""JSON-RPC without a daemon: messages in whatever pieces they come, and both ends of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.kernel.jsonrpc import Framing, JsonRpc, ProtocolError, RefusedError, connect
from plugin.kernel.ovsdb import Database, decode_value, results_of
from plugin.kernel.unixctl import Control, find
from sdn.model.errors import HawseError, Kind

NASTY = st.text(alphabet='{}[]"\\ax\n,:é', max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=8,
)
MESSAGES = st.lists(st.dictionaries(NASTY, VALUES, max_size=4), min_size=1, max_size=5)


class TestFraming:
    @given(MESSAGES, st.data())
    def test_messages_come_out_however_they_are_cut(self, messages: list[dict[str, Any]], data: st.DataObject):
        separator = data.draw(st.sampled_from(["", "\n", "  \n"]))
        ascii_only = data.draw(st.booleans())
        whole = separator.join(json.dumps(each, ensure_ascii=ascii_only) for each in messages).encode()
        cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=6)))
        framing = Framing()
        found = [
            message
            for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
            for message in framing.receive(whole[start:end])
        ]
        assert found == messages

    def test_byte_by_byte(self):
        whole = b'{"a": "}{\\"", "b": {"c": [{}]}} {"d": "\\\\"}'
        framing = Framing()
        found = [message for byte in whole for message in framing.receive(bytes([byte]))]
        assert found == [{"a": '}{"', "b": {"c": [{}]}}, {"d": "\\"}]

    @pytest.mark.parametrize(
        "nonsense",
        [
            b"hello",
            b"[1]",
            b'"text"',
            b"}",
            b'{"a": }',
            b"{]}",
            b"\x00\x01",
            b'{"a": "\xff"}',
            b"{" * 20_000 + b"}" * 20_000,
        ],
        ids=lambda nonsense: repr(nonsense[:12]),
    )
    def test_nonsense_is_named(self, nonsense: bytes):
        with pytest.raises(ProtocolError, match="it sends"):
            Framing().receive(nonsense)

    def test_it_keeps_no_more_than_its_bound(self):
        framing = Framing(message_bytes_max=1000)
        for _ in range(9):
            assert framing.receive(b'{"a": "' + b"x" * 100) == []
        with pytest.raises(ProtocolError, match="more than 1000 bytes"):
            framing.receive(b"x" * 100)


Answer = Callable[[dict[str, Any]], Any]


@contextlib.asynccontextmanager
async def daemon(path: Path, answer: Answer) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Answers each message by what `answer` returns (None: not at all; bytes: as they are)."""
    writers: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        framing = Framing()
        while data := await reader.read(65536):
            for message in framing.receive(data):
                said = answer(message)
                if said is not None:
                    writer.write(said if isinstance(said, bytes) else json.dumps(said).encode())

    server = await asyncio.start_unix_server(talk, str(path))
    try:
        yield writers
    finally:
        server.close()
        for writer in writers:
            writer.close()


class End:
    """A client, and what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.over: asyncio.Future[HawseError | None] = asyncio.get_running_loop().create_future()

    async def connect(self, path: Path) -> JsonRpc:
        return await connect(path, "a daemon", lambda *said: self.told.append(said), self.over.set_result, 2.0)


class TestConnection:
    async def test_calls_answers_refusals_and_what_is_told(self, tmp_path: Path):
        def answer(message: dict[str, Any]) -> Any:
            if message["method"] == "no":
                return {"id": message["id"], "result": None, "error": {"why": 1}}
            notice = {"method": "update", "params": [1], "id": None}
            return json.dumps(notice).encode() + json.dumps({"id": message["id"], "result": message["params"]}).encode()

        end = End()
        async with daemon(tmp_path / "s", answer):
            client = await end.connect(tmp_path / "s")
            both = client.call("a", [1]), client.call("b", [2])
            assert [await each for each in both] == [[1], [2]]
            with pytest.raises(RefusedError, match="why"):
                await client.ask("no", [], 2.0)
            assert end.told == [("update", [1])] * 2
            client.close()
            client.close()
            assert await end.over is None
            with pytest.raises(HawseError, match="is not connected"):
                await client.ask("a", [], 2.0)

    async def test_an_echo_is_answered(self, tmp_path: Path):
        heard: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def answer(message: dict[str, Any]) -> Any:
            if "method" in message:
                return {"method": "echo", "params": ["ping"], "id": "echo"}
            heard.set_result(message)
            return None

        async with daemon(tmp_path / "s", answer):
            client = await End().connect(tmp_path / "s")
            client.call("anything", [])
            assert await heard == {"result": ["ping"], "error": None, "id": "echo"}
            client.close()

    async def test_an_answer_that_comes_too_late_is_nobodys(self, tmp_path: Path):
        held: list[dict[str, Any]] = []

        def answer(message: dict[str, Any]) -> Any:
            held.append(message)
            if len(held) == 1:
                return None
            return b"".join(json.dumps({"id": each["id"], "result": each["method"]}).encode() for each in held)

        async with daemon(tmp_path / "s", answer):
            client = await End().connect(tmp_path / "s")
            with pytest.raises(HawseError, match=r"does not answer 'first' within 0\.01 s"):
                await client.ask("first", [], 0.01)
            assert await client.ask("second", [], 2.0) == "second"
            client.close()

    @pytest.mark.parametrize(
        ("said", "says"),
        [
            (b"SSH-2.0\r\n", "speaks no JSON-RPC"),
            ({"id": 1}, "neither a call nor an answer"),
        ],
    )
    async def test_nonsense_ends_it_and_fails_who_waits(self, tmp_path: Path, said: Any, says: str):
        end = End()
        async with daemon(tmp_path / "s", lambda _: said):
            client = await end.connect(tmp_path / "s")
            with pytest.raises(HawseError, match=says) as caught:
                await client.ask("a", [], 2.0)
            assert caught.value.kind is Kind.UNAVAILABLE
            assert await end.over is caught.value

    async def test_one_that_hangs_up(self, tmp_path: Path):
        end = End()
        async with daemon(tmp_path / "s", lambda _: writers[0].close()) as writers:
            client = await end.connect(tmp_path / "s")
            waiting = client.call("hang up", [])
            with pytest.raises(HawseError, match=r"a daemon at .*/s has hung up"):
                await waiting

    async def test_one_that_does_not_read(self, tmp_path: Path):
        end = End()

        async def sit(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await asyncio.Event().wait()

        server = await asyncio.start_unix_server(sit, str(tmp_path / "s"), limit=1024)
        client = await end.connect(tmp_path / "s")
        with contextlib.suppress(HawseError):
            for _ in range(1000):
                if end.over.done():
                    break
                client.call("a", ["x" * 100_000]).add_done_callback(lambda future: future.exception())
        error = await end.over
        assert error is not None
        assert "does not read" in error.message
        server.close()

    async def test_nobody_there(self, tmp_path: Path):
        with pytest.raises(HawseError, match="no socket") as caught:
            await End().connect(tmp_path / "s")
        assert caught.value.kind is Kind.UNAVAILABLE
        (tmp_path / "s").write_text("")
        with pytest.raises(HawseError, match="nobody answers"):
            await End().connect(tmp_path / "s")


class TestDatabase:
    @pytest.mark.parametrize(
        ("wire", "value"),
        [
            (1, 1),
            ("text", "text"),
            (["uuid", "u"], "u"),
            (["set", []], ()),
            (["set", [1]], 1),
            (["set", [["uuid", "u"], ["uuid", "v"]]], ("u", "v")),
            (["map", [["a", "b"], ["c", ["uuid", "u"]]]], {"a": "b", "c": "u"}),
        ],
    )
    def test_values(self, wire: Any, value: Any):
        assert decode_value(wire) == value

    @pytest.mark.parametrize("wire", [["what", 1], [], ["set", 1], ["uuid", 5]])
    def test_what_is_no_value(self, wire: Any):
        with pytest.raises(ValueError, match="no value of a database"):
            decode_value(wire)

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("constraint violation", Kind.CONFLICT),
            ("resources exhausted", Kind.EXHAUSTED),
            ("permission error", Kind.DENIED),
            ("something new", Kind.INTERNAL),
        ],
    )
    def test_refusals(self, error: str, kind: Kind):
        with pytest.raises(HawseError, match=rf"cannot try: {error} \(words\)") as caught:
            results_of([{}, {"error": error, "details": "words"}], "cannot try")
        assert caught.value.kind is kind

    async def test_an_update_right_behind_the_first_answer_is_not_lost(self, tmp_path: Path):
        def answer(message: dict[str, Any]) -> Any:
            first = {"Bridge": {"u": {"new": {"name": "b", "ports": ["set", []]}}}}
            then = {"Bridge": {"u": {"old": {"name": "b"}, "new": {"name": "c", "ports": ["set", []]}}}}
            update = {"method": "update", "params": [None, then], "id": None}
            answered = {"id": message["id"], "result": first, "error": None}
            return json.dumps(answered).encode() + json.dumps(update).encode()

        async with daemon(tmp_path / "s", answer):
            database = await Database.connect(
                tmp_path / "s", {"Bridge": ["name", "ports"]}, lambda _: None, lambda _: None
            )
            assert database.rows == {"Bridge": {"u": {"name": "c", "ports": ()}}}
            database.close()


class TestControl:
    async def test_many_at_once_each_with_its_outcome(self, tmp_path: Path):
        def answer(message: dict[str, Any]) -> Any:
            if message["params"] == ["7"]:
                return {"id": message["id"], "result": None, "error": "no seven\n"}
            return {"id": message["id"], "result": " ".join([message["method"], *message["params"]]), "error": None}

        (tmp_path / "ovs-vswitchd.pid").write_text("12\n")
        async with daemon(tmp_path / "ovs-vswitchd.12.ctl", answer):
            control = await Control.connect(find(tmp_path))
            printed = await control.run_all([("say", str(number)) for number in range(200)])
            refused = printed.pop(7)
            assert printed == [f"say {number}" for number in range(200) if number != 7]
            assert "refuses 'say 7': no seven" in str(refused)
            with pytest.raises(HawseError, match="no seven"):
                await control.run("say", "7")
            control.close()

    def test_nothing_runs(self, tmp_path: Path):
        with pytest.raises(HawseError, match="ovs-vswitchd does not run"):
            find(tmp_path)
