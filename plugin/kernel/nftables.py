"""nf_tables of one network namespace: libnftables loads tables, raw netlink does elements and counters.

Tables and rules are text (a person can read them, `nft list ruleset` shows the same) and are loaded rarely; set
elements and counters change with every attachment and go raw: 0.03 ms against 0.1 by libnftables and 2 to 18 by `nft`.
"""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import functools
import hashlib
import os
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from plugin.kernel.namespace import run_in
from plugin.kernel.nfnetlink import (
    CREATE,
    Family,
    Message,
    NetfilterError,
    NetfilterSocket,
    Type,
    attribute,
    attributes,
    nest,
    text,
)
from sdn.model.errors import HawseError, Kind, denied, unavailable

__all__ = ["Counter", "Element", "Family", "Message", "NetfilterError", "Nftables"]

_ELEMENTS_PER_MESSAGE: Final = 400  # an attribute holds 64 kB, an element takes up to 120 bytes
_COUNTER_TYPE: Final = attribute(3, struct.pack("!I", 1))  # NFTA_OBJ_TYPE = NFT_OBJECT_COUNTER
_PLAIN_ELEMENT = struct.Struct("=HHHHHH")  # NFTA_LIST_ELEM { NFTA_SET_ELEM_KEY { NFTA_DATA_VALUE key } }
_HANDLE_OUTPUT: Final = 1 << 3
_JSON_OUTPUT: Final = 1 << 4
_PACKAGE_HINT: Final = "install libnftables (Debian, Ubuntu: apt-get install libnftables1; Fedora: nftables-libs)"
_KERNEL_HINT: Final = (
    "the kernel needs nf_tables with the bridge and inet families and fib (CONFIG_NF_TABLES, CONFIG_NF_TABLES_BRIDGE, "
    "CONFIG_NF_TABLES_INET, CONFIG_NFT_FIB_INET; as modules: modprobe nf_tables nft_fib_inet)"
)
_libnftables_lock = threading.Lock()  # its parser keeps state in globals


class _LowDescriptor:
    """A descriptor below 1024, kept for libnftables: it waits with select(2), whose sets end there, and glibc aborts
    the process that goes beyond. An agent with 150 tenants has more open.

    Given up and taken without releasing the interpreter's lock, so that no other thread gets the number.
    """

    def __init__(self) -> None:
        self._libc = ctypes.PyDLL(None, use_errno=True)
        self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give_up(self) -> None:
        """The next descriptor that is opened is (this, or one lower)."""
        self._libc.close(self._fd)

    def take_back(self) -> None:
        """Keep a low one again."""
        self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


_low_descriptor = _LowDescriptor()  # at import, when few are open


class Element(NamedTuple):
    """An element of a set (`key` alone) or of a map (with `data`, or with the name of a counter)."""

    key: bytes
    data: bytes = b""
    counter: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Counter:
    """A named counter as it stands."""

    name: str
    packets: int
    bytes: int


def add_elements(family: Family, table: str, name: str, elements: Sequence[Element]) -> Iterator[Message]:
    """Messages that add elements to a set or map; what is there already is no error."""
    return _element_messages(Type.NEW_ELEMENTS, CREATE, family, table, name, elements)


def delete_elements(family: Family, table: str, name: str, elements: Sequence[Element]) -> Iterator[Message]:
    """Messages that take elements (by their keys) out; one that is absent fails the transaction with ENOENT."""
    return _element_messages(Type.DELETE_ELEMENTS, 0, family, table, name, elements)


def add_counter(family: Family, table: str, name: str) -> Message:
    """A message that makes a named counter; one that is there already is no error."""
    return Message(Type.NEW_OBJECT, family, text(1, table) + text(2, name) + _COUNTER_TYPE + nest(4, b""), CREATE)


def delete_counter(family: Family, table: str, name: str) -> Message:
    """A message that removes a named counter which no element or rule refers to (any more, in this transaction)."""
    return Message(Type.DELETE_OBJECT, family, text(1, table) + text(2, name) + _COUNTER_TYPE)


def delete_table(family: Family, table: str) -> Message:
    """A message that removes a table with all that is in it."""
    return Message(Type.DELETE_TABLE, family, text(1, table))


def versioned(body: str) -> str:
    """The name of the empty chain that marks a table as loaded from this text."""
    return f"version-1-{hashlib.sha256(body.encode()).hexdigest()[:12]}"


class Nftables:
    """The tables of one network namespace (None: the caller's own). Calls from several threads take turns."""

    def __init__(self, ns_fd: int | None = None) -> None:
        self._ns_fd = None if ns_fd is None else os.dup(ns_fd)
        try:
            self._socket = NetfilterSocket(self._ns_fd)
        except OSError as error:
            if self._ns_fd is not None:
                os.close(self._ns_fd)
            raise _explained(error, "cannot reach nf_tables") from error

    def load(self, commands: str) -> None:
        """Run `nft` commands as one transaction.

        Raises: UNAVAILABLE where libnftables or a feature of the kernel is missing, DENIED without the right to.
        """
        run_libnftables(commands, self._ns_fd)

    def transact(self, messages: Iterable[Message]) -> None:
        """Do them all or none. Raises: NetfilterError."""
        self._socket.transact(list(messages))

    def has_table(self, family: Family, table: str) -> bool:
        """Whether the table is there."""
        return self._has(Message(Type.GET_TABLE, family, text(1, table)))

    def has_chain(self, family: Family, table: str, chain: str) -> bool:
        """Whether the table is there and has the chain."""
        return self._has(Message(Type.GET_CHAIN, family, text(1, table) + text(3, chain)))

    def elements(self, family: Family, table: str, name: str) -> list[tuple[bytes, bytes]]:
        """(key, data) of all elements of a set or map, in no order. Raises: NetfilterError (ENOENT: no such set).

        `data` is empty in a set, and the counter's name in a map to counters.
        """
        request = Message(Type.GET_ELEMENTS, family, text(1, table) + text(2, name))
        return [element for payload in self._socket.dump(request) for element in _decode_elements(payload)]

    def find(self, family: Family, table: str, name: str, key: bytes) -> bytes | None:
        """The data (see `elements`) of one element; None: it is not there, or there is no such set.

        Raises: NetfilterError.
        """
        request = Message(Type.GET_ELEMENTS, family, _set_head(table, name) + nest(3, _encode_element(Element(key))))
        try:
            found = [element for payload in self._socket.get(request) for element in _decode_elements(payload)]
        except NetfilterError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return found[0][1] if found else None

    def counters(self, family: Family, table: str) -> list[Counter]:
        """All named counters of a table; none if there is no such table. Raises: NetfilterError."""
        request = Message(Type.GET_OBJECT, family, text(1, table) + _COUNTER_TYPE)
        return [_decode_counter(payload) for payload in self._socket.dump(request)]

    def close(self) -> None:
        """Let go of the descriptors; the tables stay."""
        self._socket.close()
        if self._ns_fd is not None:
            os.close(self._ns_fd)
            self._ns_fd = None

    def _has(self, message: Message) -> bool:
        try:
            return bool(self._socket.get(message))
        except NetfilterError as error:
            if error.errno == errno.ENOENT:
                return False
            raise _explained(error, "cannot read nf_tables") from error


def run_libnftables(commands: str, ns_fd: int | None = None, *, json: bool = False, handles: bool = False) -> str:
    """Run `nft` commands in a namespace (None: the caller's), one transaction; returns what they print.

    `json`: as JSON; `handles`: as text, each thing with its handle.

    The context binds its socket to the namespace of the thread that makes it, so it lives and dies in one thread.
    Raises: UNAVAILABLE, DENIED, INTERNAL.
    """
    library = _library()

    def run() -> tuple[int, str, str]:
        _low_descriptor.give_up()
        context = library.nft_ctx_new(0)
        if not context:
            _low_descriptor.take_back()
            return 1, "", "no context (out of memory, or no netlink)"
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            if json or handles:
                library.nft_ctx_output_set_flags(context, _JSON_OUTPUT if json else _HANDLE_OUTPUT)
            status = library.nft_run_cmd_from_buffer(context, commands.encode())
            printed = library.nft_ctx_get_output_buffer(context) or b""
            complaint = library.nft_ctx_get_error_buffer(context) or b""
            return status, printed.decode(errors="replace"), complaint.decode(errors="replace")
        finally:
            library.nft_ctx_free(context)
            _low_descriptor.take_back()

    with _libnftables_lock:
        status, printed, complaint = run() if ns_fd is None else run_in(ns_fd, run)
    if status != 0:
        raise _load_error(complaint)
    return printed


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
        holding = ctypes.PyDLL("libnftables.so.1")
    except OSError as error:
        raise unavailable(f"cannot load nftables rules: {error}", _PACKAGE_HINT) from None
    pointer = ctypes.c_void_p
    holding.nft_ctx_new.restype = pointer
    holding.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.__dict__["nft_ctx_new"] = holding.nft_ctx_new  # it opens its socket: see _LowDescriptor
    library.nft_ctx_free.argtypes = [pointer]
    library.nft_ctx_free.restype = None
    library.nft_ctx_buffer_output.argtypes = [pointer]
    library.nft_ctx_buffer_error.argtypes = [pointer]
    library.nft_ctx_output_set_flags.argtypes = [pointer, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    library.nft_run_cmd_from_buffer.argtypes = [pointer, ctypes.c_char_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        function = getattr(library, name)
        function.argtypes = [pointer]
        function.restype = ctypes.c_char_p
    return library


def _load_error(complaint: str) -> HawseError:
    """What a refused load means: the commands are ours and constant, so the kernel or the library lacks something."""
    line = next((line.strip() for line in complaint.splitlines() if line.strip()), "no reason given")
    if "not permitted" in complaint:
        return denied(f"the kernel refuses nftables rules: {line}", "run as root, or with CAP_NET_ADMIN")
    if "syntax error" in complaint or "datatype mismatch" in complaint:
        return unavailable(f"libnftables does not understand the rules: {line}", "nftables 1.0.6 or newer is needed")
    return unavailable(f"the kernel refuses nftables rules: {line}", _KERNEL_HINT)


def _explained(error: OSError, attempt: str) -> HawseError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return denied(f"{attempt}: {error}", "run as root, or with CAP_NET_ADMIN")
    if error.errno in (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EINVAL):
        return unavailable(f"{attempt}: {error}", _KERNEL_HINT)
    return HawseError(Kind.INTERNAL, f"{attempt}: {error}")


def _element_messages(
    kind: Type, flags: int, family: Family, table: str, name: str, elements: Sequence[Element]
) -> Iterator[Message]:
    head = _set_head(table, name)
    for start in range(0, len(elements), _ELEMENTS_PER_MESSAGE):
        chunk = elements[start : start + _ELEMENTS_PER_MESSAGE]
        yield Message(kind, family, head + nest(3, b"".join(map(_encode_element, chunk))), flags)


@functools.lru_cache(maxsize=256)  # tables and sets are few and named in constants
def _set_head(table: str, name: str) -> bytes:
    return text(1, table) + text(2, name)


def _encode_element(element: Element) -> bytes:
    key, data, counter = element
    if len(key) % 4 == 0 and not data and not counter:  # nearly all of them
        size = len(key)
        return _PLAIN_ELEMENT.pack(12 + size, 0x8001, 8 + size, 0x8001, 4 + size, 1) + key
    content = nest(1, attribute(1, key))
    if data:
        content += nest(2, attribute(1, data))
    if counter:
        content += text(9, counter)
    return nest(1, content)


def _decode_elements(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The elements of one message. The kernel puts the key first, and its value fills the nest."""
    for kind, listed in attributes(payload):
        position, end = 0, len(listed) if kind == 3 else 0
        while position + _PLAIN_ELEMENT.size <= end:
            size, _, key_size, _, value_size, _ = _PLAIN_ELEMENT.unpack_from(listed, position)
            if size < 12:
                return
            key = listed[position + 12 : position + 8 + value_size]
            behind_key = position + 4 + ((key_size + 3) & ~3)
            yield key, _decode_data(listed[behind_key : position + size]) if behind_key < position + size else b""
            position += (size + 3) & ~3


def _decode_data(content: bytes) -> bytes:
    """What an element maps to: the bytes of a value, or a counter's name."""
    for part, nested in attributes(content):
        if part == 2:
            return next(attributes(nested), (0, b""))[1]
        if part == 9:
            return nested.rstrip(b"\0")
    return b""


def _decode_counter(payload: bytes) -> Counter:
    name, packets, size = "", 0, 0
    for kind, value in attributes(payload):
        if kind == 2:
            name = value.rstrip(b"\0").decode()
        elif kind == 4:
            numbers = dict(attributes(value))
            size, packets = (int.from_bytes(numbers.get(part, b""), "big") for part in (1, 2))
    return Counter(name, packets, size)
