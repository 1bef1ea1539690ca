"""Entries of a switch to objects: what `expand` made of them, looked at from the other side.

Each flow of each template has a pattern, made by example as the template is; an entry that fits it gives what was
filled in. A flow that is an object by itself is recognised so; where an object has several, what they say is put
together, expanded again, and compared. What does not add up is Damaged, with all of its flows; a flow of ours that
fits nothing is a stray, an object by itself that nobody wants. Flows that are not ours, and those of the pipeline
(`pipeline.changes` sees to them), are passed over.
"""

from __future__ import annotations

import functools
import hashlib
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from sdn.model.address import link_local
from sdn.openflow import expand, pipeline
from sdn.openflow.cookies import TAG, Kind
from sdn.openflow.decode import Entry, entry_of
from sdn.openflow.objects import TUNNEL, Damaged, Gateway, Member, Neighbour, NetworkFlows, Speaker, Station
from sdn.openflow.tables import Table
from sdn.openflow.template import Template
from sdn.reconcile.datapath import Key, Object

Values = tuple[bytes, ...]
"""What was filled into a flow, in the order of the first places of its holes; those of its match come first."""
Places = Mapping[str, int]
"""Where in them the value of a hole is."""
Names = Mapping[bytes, str]
"""Ports' names by their numbers."""
Identity = tuple[int, int, bytes]
"""Table, priority, match."""

_OURS: Final = TAG >> 48
_OF_PIPELINE: Final = TAG >> 40 | Kind.PIPELINE


class _Sight(NamedTuple):
    """How a flow of a template is known: by all of it, or (where it was changed) by its match."""

    template: Template
    places: Places
    whole: re.Pattern[bytes]
    identity: Callable[[], re.Pattern[bytes]]
    """Made when first needed."""
    key: Callable[[Values, Names], Key | None]
    alone: Callable[[Values, int], Object] | None
    """Of values and cookie: what it is by itself."""


class _Piece(NamedTuple):
    """A flow of an object. `sight` None: its match is of the object, but it does not say what it should."""

    sight: _Sight | None
    values: Values
    entry: Entry


def recognise(entries: Iterable[Entry], ports: Mapping[str, int]) -> dict[Key, Object]:
    """The objects that a switch's entries are. `ports`: name -> number, with the tunnel's."""
    names = {number.to_bytes(4, "big"): name for name, number in ports.items() if name != TUNNEL}
    sights = _sights(ports[TUNNEL])
    objects: dict[Key, Object] = {}
    several: dict[Key, list[_Piece]] = defaultdict(list)
    odd: list[Entry] = []
    for entry in entries:
        table, priority, cookie, _, _, match, instructions = entry
        if cookie >> 48 != _OURS or cookie >> 40 == _OF_PIPELINE:
            continue
        told = match + instructions + cookie.to_bytes(8, "big")
        for sight in sights.get((table, priority, len(match)), ()):
            if fits := sight.whole.fullmatch(told):
                values = fits.groups()
                key = sight.key(values, names)
                if key is None:
                    continue
                if sight.alone is not None:
                    objects[key] = sight.alone(values, cookie)
                else:
                    several[key].append(_Piece(sight, values, entry))
                break
        else:
            odd.append(entry)
    objects |= _place(odd, several, names, ports[TUNNEL])
    for key, pieces in several.items():
        objects[key] = _together(key, pieces, objects.get(key), ports, names)
    return objects


def _place(
    odd: Iterable[Entry], several: dict[Key, list[_Piece]], names: Names, tunnel: int
) -> Iterator[tuple[Key, Object]]:
    """Put flows that do not say what they should to the object that their match is of; the strays are what is left."""
    sights, static = _sights(tunnel), pipeline.entries(tunnel)
    for entry in odd:
        identity = _identity(entry)
        if identity in static:
            continue
        for sight in sights.get((entry.table, entry.priority, len(entry.match)), ()):
            fits = sight.identity().fullmatch(entry.match)
            key = sight.key(fits.groups(), names) if fits else None
            if key is not None:
                several[key].append(_Piece(None, (), entry))
                break
        else:
            yield ("stray", str(entry.table), str(entry.priority), entry.match.hex()), Damaged((identity,))


def _identity(entry: Entry) -> Identity:
    return entry.table, entry.priority, entry.match


def _together(key: Key, pieces: list[_Piece], beside: Object | None, ports: Mapping[str, int], names: Names) -> Object:
    """The object of several flows, if they are exactly what it expands to. `beside`: what another flow is alone."""
    found = [_identity(piece.entry) for piece in pieces]
    if beside is not None:
        found += [_identity(entry_of(message)) for message in expand.adds_of(key, beside, ports)]
        return Damaged(tuple(sorted(found)))
    try:
        claimed = _claimed(pieces, names)
        expected = {_content(entry_of(message)) for message in expand.adds_of(key, claimed, ports)}
    except KeyError:  # something is missing: a flow, or a port
        return Damaged(tuple(sorted(found)))
    same = expected == {_content(piece.entry) for piece in pieces}
    return claimed if same else Damaged(tuple(sorted(found)))


def _content(entry: Entry) -> tuple[int, int, bytes, int, bytes]:
    return entry.table, entry.priority, entry.match, entry.cookie, entry.instructions


def _claimed(pieces: list[_Piece], names: Names) -> Object:
    """What some flows say together that they are of. Raises: KeyError."""
    said: dict[str, bytes] = {}
    templates, addresses = set[Template](), set[str]()
    for sight, values, entry in pieces:
        if sight is None:
            raise KeyError(entry.match)
        templates.add(sight.template)
        said |= {name: values[place] for name, place in sight.places.items()}
        if entry.table == Table.ADDRESS and "address" in sight.places:
            addresses.add(_address(said["address"]))
    if expand.NETWORK in templates:
        return NetworkFlows(int.from_bytes(said["tenant"], "big"))
    mac = said["mac"].hex(":")
    if templates & {expand.GATEWAY4, expand.GATEWAY6}:
        return Gateway(mac, int.from_bytes(said["tenant"], "big"))
    cookie = int.from_bytes(said["cookie"], "big")
    if expand.HERE in templates:
        return Station(names[said["port"]], "", cookie)
    own = tuple(sorted(addresses - {link_local(mac)}))
    return Speaker(int.from_bytes(said["vni"], "big"), mac, own, cookie)


def _address(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


@functools.lru_cache(4096)
def _vni(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big"))


def _by_vni(kind: str, more: str, text: Callable[[bytes], str]) -> Callable[[Places], Callable[..., Key | None]]:
    """What makes a key of a VNI and one thing more."""

    def prepare(places: Places) -> Callable[[Values, Names], Key | None]:
        first, second = places["vni"], places[more]
        return lambda values, names: (kind, _vni(values[first]), text(values[second]))

    return prepare


def _network_key(places: Places) -> Callable[[Values, Names], Key | None]:
    first = places["vni"]
    return lambda values, names: ("network", _vni(values[first]))


def _gateway_key(places: Places) -> Callable[[Values, Names], Key | None]:
    """The match of one of its flows names the tenant and no network: where it was changed, it is a stray."""
    first, second = places["vni"], places["address"]
    return lambda values, names: (
        ("gateway", _vni(values[first]), _address(values[second])) if first < len(values) else None
    )


def _speaker_key(places: Places) -> Callable[[Values, Names], Key | None]:
    port = places["port"]
    return lambda values, names: ("speaker", names[values[port]]) if values[port] in names else None


def _neighbour(places: Places) -> Callable[[Values, int], Object]:
    mac = places["mac"]
    return lambda values, cookie: Neighbour(values[mac].hex(":"), cookie)


def _station(places: Places) -> Callable[[Values, int], Object]:
    vtep = places["vtep"]
    return lambda values, cookie: Station("", _address(values[vtep]), cookie)


def _member(_: Places) -> Callable[[Values, int], Object]:
    return lambda values, cookie: Member()


_KEYS: Final[dict[Template, Callable[[Places], Callable[[Values, Names], Key | None]]]] = {
    **dict.fromkeys((expand.NEIGHBOUR4, expand.NEIGHBOUR6), _by_vni("neighbour", "address", _address)),
    **dict.fromkeys((expand.THERE4, expand.THERE6, expand.HERE), _by_vni("station", "mac", lambda raw: raw.hex(":"))),
    **dict.fromkeys((expand.SPEAKER, expand.SPEAKS4, expand.SPEAKS6), _speaker_key),
    **dict.fromkeys((expand.MEMBER4, expand.MEMBER6), _by_vni("member", "vtep", _address)),
    **dict.fromkeys((expand.GATEWAY4, expand.GATEWAY6), _gateway_key),
    expand.NETWORK: _network_key,
}
_ALONE: Final = {
    **dict.fromkeys((expand.NEIGHBOUR4, expand.NEIGHBOUR6), _neighbour),
    **dict.fromkeys((expand.THERE4, expand.THERE6), _station),
    **dict.fromkeys((expand.MEMBER4, expand.MEMBER6), _member),
}


@functools.lru_cache(64)
def _sights(tunnel: int) -> dict[tuple[int, int, int], list[_Sight]]:
    """By what is quickly told apart: table, priority, length of the match."""
    known = {"tunnel": tunnel.to_bytes(4, "big")}
    sights: dict[tuple[int, int, int], list[_Sight]] = defaultdict(list)
    for template, key in _KEYS.items():
        holes = template.holes.items()
        example = {name: hashlib.blake2s(name.encode(), digest_size=kind.size).digest() for name, kind in holes}
        for message in template.add(*example.values()):
            entry = entry_of(message)
            whole = _pattern(entry.match + entry.instructions + entry.cookie.to_bytes(8, "big"), example, known)
            places = {name: number - 1 for name, number in whole.groupindex.items()}
            alone = _ALONE[template](places) if template in _ALONE else None
            identity = functools.cache(functools.partial(_pattern, entry.match, example, known))
            sight = _Sight(template, places, whole, identity, key(places), alone)
            sights[entry.table, entry.priority, len(entry.match)].append(sight)
    return sights


def _pattern(example: bytes, values: Mapping[str, bytes], known: Mapping[str, bytes]) -> re.Pattern[bytes]:
    """What fits bytes in which other values are than in the example, but one value wherever it comes."""
    names, seen = {value: name for name, value in values.items()}, set[str]()
    holes = re.compile(b"|".join(map(re.escape, sorted(names, key=len, reverse=True))), re.S)
    parts, at = [], 0
    for hole in holes.finditer(example):
        name = names[hole[0]]
        parts.append(re.escape(example[at : hole.start()]))
        if name in known:
            parts.append(re.escape(known[name]))
        else:
            fill = b"(?P=%b)" if name in seen else b"(?P<%%b>.{%d})" % len(hole[0])
            parts.append(fill % name.encode())
            seen.add(name)
        at = hole.end()
    return re.compile(b"".join([*parts, re.escape(example[at:])]), re.S)
