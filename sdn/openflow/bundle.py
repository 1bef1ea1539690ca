"""Bundles: many messages that are done all or not at all; and what is left out where some are refused.

A run has rounds. In a round: open, the messages, close, a barrier; when its answer is here, every message that the
switch refuses to take has been named: then the bundle is discarded, else committed, and a second barrier ends the
round. (Open vSwitch commits the rest of a bundle of which it refused a message: the first barrier is what makes it all
or nothing.) What was refused is left out of the next round. A message may also fail as it is committed, which names one
offender at a time: after three rounds each group gets a bundle of its own, side by side, which ends it whatever fails.

Source: ONF EXT-230, sections 3 and 4.
"""

from __future__ import annotations

import bisect
import dataclasses
import enum
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from sdn.model.errors import HawseError, exhausted, unavailable
from sdn.openflow.errors import BAD_EXPERIMENTER, BAD_REQUEST, ONF, Error, Refusal, RefusedError
from sdn.openflow.framing import HEADER_BYTES, MOST_BYTES, VERSION, Layout, ProtocolError, Type
from sdn.openflow.messages import Experimenter, Plain, encode

CONTROL: Final = 2300
ADD: Final = 2301
MOST_MESSAGES: Final = 1 << 20
"""In one bundle: a switch holds all of them until the commit."""
_ROUNDS: Final = 3
_SIDE_BY_SIDE: Final = 256
_ATOMIC_ORDERED: Final = 3
_CHUNK_MESSAGES: Final = 512
_KEPT_BYTES: Final = 64
_ADD_HEAD: Final = struct.Struct(">HHI16s4sI")
_ADD_BYTES: Final = 24
_CONTROL: Final = Layout("bundle_id:I type:H flags:H", 16, " (bundle control)")
_ADDED: Final = Layout("bundle_id:I :2x flags:H", 16, " (bundle add)")


class Verb(enum.IntEnum):
    """What is asked of, or answered for, a bundle."""

    OPEN = 0
    OPENED = 1
    CLOSE = 2
    CLOSED = 3
    COMMIT = 4
    COMMITTED = 5
    DISCARD = 6
    DISCARDED = 7


@dataclasses.dataclass(frozen=True, slots=True)
class BundleControl:
    """ONF_BUNDLE_CONTROL, as the experimenter message that it is."""

    bundle: int
    verb: Verb
    flags: int = _ATOMIC_ORDERED

    def message(self) -> Experimenter:
        """To be sent."""
        return Experimenter(ONF, CONTROL, _CONTROL.pack(self.bundle, self.verb, self.flags))

    @classmethod
    def parse(cls, frame: bytes) -> BundleControl:
        """Of a whole message; properties are passed over. Raises: ProtocolError."""
        bundle, verb, flags = _CONTROL.unpack(frame)
        if verb not in Verb._value2member_map_:
            raise ProtocolError("EXPERIMENTER (bundle control)", "type", 20, f"is {verb}, none of 0 to 7")
        return cls(bundle, Verb(verb), flags)


@dataclasses.dataclass(frozen=True, slots=True)
class BundleAdd:
    """ONF_BUNDLE_ADD_MESSAGE: `message` is whole, with its header."""

    bundle: int
    message: bytes
    flags: int = _ATOMIC_ORDERED

    @classmethod
    def parse(cls, frame: bytes) -> BundleAdd:
        """Of a whole message. Raises: ProtocolError."""
        bundle, flags = _ADDED.unpack(frame)
        inner = frame[_ADDED.end :]
        if len(inner) < HEADER_BYTES or int.from_bytes(inner[2:4], "big") > len(inner):
            raise ProtocolError("EXPERIMENTER (bundle add)", "message", 24, f"is cut off: {len(inner)} bytes")
        return cls(bundle, inner[: int.from_bytes(inner[2:4], "big")], flags)


def adds(bundle: int, messages: Sequence[bytes], first_xid: int) -> Iterator[bytes]:
    """ADDs of messages with xids from `first_xid` on, outside and inside; some hundred at a time.

    One after the other as they are taken: the switch reads the first while the last are made.
    """
    constant = struct.pack(">IIIHH", ONF, ADD, bundle, 0, _ATOMIC_ORDERED)
    kind = VERSION << 8 | Type.EXPERIMENTER
    pack = _ADD_HEAD.pack
    for at in range(0, len(messages), _CHUNK_MESSAGES):
        yield b"".join(
            [
                pack(kind, _ADD_BYTES + len(message), xid, constant, message[:4], xid) + message[HEADER_BYTES:]
                for xid, message in enumerate(messages[at : at + _CHUNK_MESSAGES], first_xid + at)
            ]
        )


@dataclasses.dataclass(slots=True)
class _Bundle:
    """One bundle of a round: some groups, and what became of them."""

    number: int
    groups: list[int]
    starts: list[int]  # of each group's first ADD: its place among the ADDs
    first: int  # xid of the first ADD; OPEN's is one less, CLOSE's is `end`
    end: int
    refusals: dict[int, Refusal] = dataclasses.field(default_factory=dict)
    failure: Error | None = None  # of the bundle itself
    verdict_xid: int = 0  # COMMIT's or DISCARD's
    committed: bool = False

    def blame(self, xid: int, error: Error) -> None:
        """An error, whose xid is this bundle's."""
        if self.first <= xid < self.end:
            place = bisect.bisect_right(self.starts, xid - self.first) - 1
            if self.groups[place] not in self.refusals:
                self.refusals[self.groups[place]] = Refusal(xid - self.first - self.starts[place], _short(error))
        elif self.failure is None:
            self.failure = _short(error)


class BundleRun:
    """Groups of messages on their way. Feed it what is of its xids; `verdicts` (or `error`) is there at its end."""

    def __init__(
        self, groups: Sequence[Sequence[bytes]], xids: Callable[[int], int], numbers: Callable[[int], int]
    ) -> None:
        """`xids`, `numbers`: take so many in a row, and say the first. Raises: too many, or too long, messages."""
        self._messages = groups
        self._xids = xids
        self._numbers = numbers
        self._waiting = [index for index, group in enumerate(groups) if group]
        self._round = 0
        self._bundles: list[_Bundle] = []
        self._range = range(0)
        self._second = range(0)
        self.verdicts: list[Refusal | None] = [None] * len(groups)
        self.error: HawseError | None = None
        self.messages = sum(map(len, groups))
        if self.messages > MOST_MESSAGES:
            raise exhausted(f"{self.messages} messages are too many for one bundle: {MOST_MESSAGES} is the most")
        longest = max(map(len, itertools.chain.from_iterable(groups)), default=0)
        if longest > MOST_BYTES - _ADD_BYTES:
            raise exhausted(
                f"a message of {longest} bytes is too long for a bundle: {MOST_BYTES - _ADD_BYTES} is the most"
            )

    def owns(self, xid: int) -> bool:
        """Whether an answer or an error of that xid is this run's."""
        return xid in self._range or xid in self._second

    def awaits(self, xid: int) -> bool:
        """Whether it is the barrier of that xid whose answer is waited for."""
        return xid == (self._second or self._range)[-1]

    def send(self) -> list[Iterable[bytes]]:
        """What is to be sent first of a round, made as it is taken. Empty: there is nothing to do, it is over."""
        if not self._waiting:
            return []
        singly = self._round >= _ROUNDS
        packs = [[index] for index in self._waiting[:_SIDE_BY_SIDE]] if singly else [self._waiting]
        self._waiting = self._waiting[len(packs) :] if singly else []
        count = sum(2 + sum(len(self._messages[index]) for index in pack) for pack in packs) + 1
        xid = self._xids(count)
        self._range, self._second = range(xid, xid + count), range(0)
        self._bundles = []
        chunks: list[Iterable[bytes]] = []
        for number, pack in enumerate(packs, self._numbers(len(packs))):
            sizes = [len(self._messages[index]) for index in pack]
            starts = [0, *itertools.accumulate(sizes)]
            bundle = _Bundle(number, pack, starts[:-1], xid + 1, xid + 1 + starts[-1])
            messages = [message for index in pack for message in self._messages[index]]
            chunks += [_control(number, Verb.OPEN, xid)], adds(number, messages, bundle.first)
            chunks.append([_control(number, Verb.CLOSE, bundle.end)])
            self._bundles.append(bundle)
            xid = bundle.end + 1
        return [*chunks, [encode(Plain(Type.BARRIER_REQUEST), xid)]]

    def barrier(self, xid: int) -> list[Iterable[bytes]]:
        """A barrier's answer: what is to be sent next. Empty: it is over."""
        if self._second:
            self._end_round()
            return [] if self.error else self.send()
        first = self._xids(len(self._bundles) + 1)
        self._second = range(first, first + len(self._bundles) + 1)
        verdicts = []
        for bundle, verdict_xid in zip(self._bundles, self._second, strict=False):  # the last xid is the barrier's
            bundle.verdict_xid = verdict_xid
            good = not bundle.refusals and bundle.failure is None
            verdicts.append(_control(bundle.number, Verb.COMMIT if good else Verb.DISCARD, verdict_xid))
        return [[*verdicts, encode(Plain(Type.BARRIER_REQUEST), self._second[-1])]]

    def control(self, xid: int, answer: BundleControl) -> None:
        """An answer to OPEN, CLOSE, COMMIT or DISCARD; only COMMIT's is news."""
        if answer.verb is Verb.COMMITTED:
            for bundle in self._bundles:
                bundle.committed |= bundle.verdict_xid == xid

    def refused(self, xid: int, error: Error) -> None:
        """An error."""
        for bundle in self._bundles:
            if bundle.first - 1 <= xid <= bundle.end or bundle.verdict_xid == xid:
                bundle.blame(xid, error)

    def _end_round(self) -> None:
        singly = self._round >= _ROUNDS
        self._round += 1
        for bundle in self._bundles:
            if bundle.failure is not None and _knows_no_bundles(bundle.failure):
                what = f"the switch does not know OpenFlow 1.3 bundles (EXT-230): {bundle.failure.text}"
                self.error = RefusedError(bundle.failure, what)
                return
            for index, refusal in bundle.refusals.items():
                self.verdicts[index] = refusal
            left = [index for index in bundle.groups if index not in bundle.refusals]
            if bundle.committed or not left:
                continue
            if bundle.failure is None and not bundle.refusals:
                self.error = unavailable("the switch answers the barrier after a bundle's commit, but not the commit")
            elif singly:
                assert bundle.failure is not None, "a group of its own that is not refused has nobody else to blame"
                self.verdicts[left[0]] = Refusal(None, bundle.failure)
            else:
                self._waiting = left
                if not bundle.refusals:
                    self._round = _ROUNDS  # nobody in particular is to blame: each for itself


def _control(bundle: int, verb: Verb, xid: int) -> bytes:
    return encode(BundleControl(bundle, verb).message(), xid)


def _short(error: Error) -> Error:
    """Without most of what it sends back: ten thousand of them may be kept."""
    return dataclasses.replace(error, data=error.data[:_KEPT_BYTES])


def _knows_no_bundles(error: Error) -> bool:
    return (error.type, error.code) == (BAD_REQUEST, BAD_EXPERIMENTER)
