"""A reader of tar archives, as they stream by: ustar, GNU and PAX, with sparse files, and nothing that seeks.

What it meets is checked, not trusted: sums, numbers, sizes. What is not payload can be kept as it came (`literal`), so
that the archive can be written again to the byte. It differs from `tarfile` where that one is lenient: a single
block of zeros in the middle is refused, as Go's reader does, so that no two readers see two images.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Sparse Formats".
"""

from __future__ import annotations

from collections.abc import Iterator

from runtime.image.stream import Stream
from sdn.model.errors import HawseError, invalid

BLOCK = 512
HEADER_BYTES_MAX = 1 << 20
"""Of extended headers and long names: a path has at most 4096 bytes, an attribute 64 KiB."""
SPARSE_PIECES_MAX = 100_000

REGULAR, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_OLD_REGULAR, _CONTIGUOUS = b"\x007"
_LONG_NAME, _LONG_LINK, _OLD_SPARSE, _LABEL = b"LKSV"
_EXTENDED, _SOLARIS_EXTENDED, _GLOBAL = b"xXg"
_ZEROS = bytes(BLOCK)
XATTR = b"SCHILY.xattr."


class Entry:
    """One member. `size_bytes`: of the file. `pieces`: of a sparse file, (offset, bytes) of what is stored."""

    __slots__ = (
        "gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "pieces", "size_bytes", "stored_bytes",
        "uid", "xattrs",
    )  # fmt: skip

    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size_bytes: int
    stored_bytes: int
    mtime_ns: int
    link: bytes
    major: int
    minor: int
    xattrs: dict[bytes, bytes]
    pieces: list[tuple[int, int]] | None


class TarReader:
    """Entries of a stream, in order; an entry's payload is to be taken before the next entry is asked for, or not at
    all. `literal`: all bytes since it was last cleared that are not payload, where `keep`.
    """

    def __init__(self, stream: Stream, what: str, keep: bool = False) -> None:
        self._stream = stream
        self._what = what
        self._keep = keep
        self._left = 0
        self._padding = 0
        self._globals: dict[bytes, bytes] = {}
        self.literal = bytearray()

    def _bad(self, reason: str) -> HawseError:
        return invalid(f"{self._what} is no proper tar archive: {reason}", "it is damaged; save or build it again")

    def _take(self, count: int) -> bytes:
        data = self._stream.take(count)
        if self._keep:
            self.literal += data
        return data

    def _take_padded(self, count: int) -> bytes:
        if count > HEADER_BYTES_MAX:
            raise self._bad(f"a header of {count} bytes")
        return self._take(count + -count % BLOCK)[:count]

    def payload(self) -> Iterator[memoryview]:
        """What is stored of the current entry, in pieces that are valid until the next."""
        left, self._left = self._left, 0
        return self._stream.pieces(left)

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next so many bytes of the current entry's payload."""
        assert count <= self._left
        self._left -= count
        return self._stream.pieces(count)

    def entries(self) -> Iterator[Entry]:
        """Raises: INVALID. Afterwards the stream is behind the end mark."""
        while True:
            self._finish_payload()
            block = self._block()
            if block is None:
                return
            yield self._entry(block)

    def _finish_payload(self) -> None:
        left, self._left = self._left, 0
        if self._keep:
            for piece in self._stream.pieces(left):
                self.literal += piece
        elif left:
            self._stream.skip(left)
        if self._padding:
            self._take(self._padding)
            self._padding = 0

    def _block(self) -> bytes | None:
        """The next header; None at the end."""
        block = self._stream.take_some(BLOCK)
        if self._keep:
            self.literal += block
        if not block:
            return None
        if len(block) < BLOCK:
            raise self._bad("it ends in the middle of a header")
        if block == _ZEROS:
            second = self._stream.take_some(BLOCK)
            if self._keep:
                self.literal += second
            if second not in (b"", _ZEROS):
                raise self._bad("entries follow a block of zeros")
            return None
        told = _number(block[148:156])
        if told != _sum(block) and told != _signed_sum(block):
            raise self._bad("a header's sum is wrong")
        return block

    def _entry(self, block: bytes) -> Entry:
        """The entry that begins with this header, extended headers before it included."""
        extended: list[tuple[bytes, bytes]] = []
        name = link = None
        while (kind := block[156]) in (_EXTENDED, _SOLARIS_EXTENDED, _GLOBAL, _LONG_NAME, _LONG_LINK):
            data = self._take_padded(self._positive(block[124:136], "size"))
            if kind in (_EXTENDED, _SOLARIS_EXTENDED):
                extended += self._records(data)
            elif kind == _GLOBAL:
                self._globals.update(self._records(data))
            elif kind == _LONG_NAME:
                name = data.partition(b"\0")[0]
            else:
                link = data.partition(b"\0")[0]
            following = self._block()
            if following is None:
                raise self._bad("it ends after an extended header")
            block = following
        entry = self._plain(block)
        entry.name = entry.name if name is None else name
        entry.link = entry.link if link is None else link
        if self._globals or extended:
            self._extend(entry, {**self._globals, **dict(extended)})
        self._size(entry, block, extended)
        return entry

    def _plain(self, block: bytes) -> Entry:
        entry = Entry()
        entry.name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and block[345]:  # GNU's own form has times there
            entry.name = block[345:500].partition(b"\0")[0] + b"/" + entry.name
        entry.kind = block[156]
        entry.mode = self._positive(block[100:108], "mode") & 0o7777
        entry.uid = self._positive(block[108:116], "uid")
        entry.gid = self._positive(block[116:124], "gid")
        entry.size_bytes = self._positive(block[124:136], "size")
        mtime = _number(block[136:148])
        if mtime is None or abs(mtime) >= 10**11:
            raise self._bad("a time is no number")
        entry.mtime_ns = mtime * 1_000_000_000
        entry.link = block[157:257].partition(b"\0")[0]
        entry.major = entry.minor = 0
        if entry.kind in (CHARACTER, BLOCK_DEVICE):
            entry.major = self._positive(block[329:337], "device")
            entry.minor = self._positive(block[337:345], "device")
        entry.xattrs = {}
        entry.pieces = None
        return entry

    def _extend(self, entry: Entry, values: dict[bytes, bytes]) -> None:
        for key, value in values.items():
            if key in (b"path", b"GNU.sparse.name"):
                entry.name = values.get(b"GNU.sparse.name", value)
            elif key == b"linkpath":
                entry.link = value
            elif key in (b"size", b"uid", b"gid"):
                number = self._decimal(value)
                if key == b"size":
                    entry.size_bytes = number
                elif key == b"uid":
                    entry.uid = number
                else:
                    entry.gid = number
            elif key == b"mtime":
                entry.mtime_ns = self._time(value)
            elif key.startswith(XATTR):
                entry.xattrs[key[len(XATTR) :]] = value
        if any(b"\0" in text for text in (entry.name, entry.link, *entry.xattrs)):
            raise self._bad("a name has a zero byte in it")

    def _size(self, entry: Entry, block: bytes, extended: list[tuple[bytes, bytes]]) -> None:
        """What kind it is in the end, how much of it is stored, and where that belongs."""
        if entry.kind == _OLD_REGULAR:
            entry.kind = DIRECTORY if entry.name.endswith(b"/") else REGULAR
        sparse = {key for key, _ in extended if key.startswith(b"GNU.sparse.")}
        if entry.kind == _OLD_SPARSE:
            stored = entry.size_bytes
            self._old_sparse(entry, block)
        elif sparse and entry.kind in (REGULAR, _CONTIGUOUS):
            stored = self._pax_sparse(entry, extended)
        else:
            stored = entry.size_bytes if entry.kind not in _WITHOUT_PAYLOAD else 0
            entry.size_bytes = stored
        if entry.kind in (_OLD_SPARSE, _CONTIGUOUS):
            entry.kind = REGULAR
        entry.stored_bytes = self._left = stored
        if not sparse:
            self._padding = -stored % BLOCK
        if entry.pieces is not None:
            self._check_pieces(entry)

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU's own: a map in the header, and in blocks behind it."""
        entry.size_bytes = self._positive(block[483:495], "size")
        fields, more = block[386:482], block[482]
        entry.pieces = pieces = self._pairs(fields)
        while more:
            fields = self._take(BLOCK)
            pieces += self._pairs(fields[:504])
            more = fields[504]
            if len(pieces) > SPARSE_PIECES_MAX:
                raise self._bad(f"a sparse file of more than {SPARSE_PIECES_MAX} pieces")

    def _pairs(self, fields: bytes) -> list[tuple[int, int]]:
        return [
            (self._positive(fields[at : at + 12], "offset"), self._positive(fields[at + 12 : at + 24], "size"))
            for at in range(0, len(fields), 24)
            if fields[at + 12]
        ]

    def _pax_sparse(self, entry: Entry, extended: list[tuple[bytes, bytes]]) -> int:
        """The PAX forms: 0.0 repeats keys, 0.1 has a list, 1.0 one before the payload. Returns what is still stored."""
        values = dict(extended)
        stored = entry.size_bytes
        self._padding = -stored % BLOCK
        size = values.get(b"GNU.sparse.realsize", values.get(b"GNU.sparse.size"))
        if size is None:
            raise self._bad("a sparse file without a size")
        entry.size_bytes = self._decimal(size)
        if b"GNU.sparse.major" in values:
            if (values[b"GNU.sparse.major"], values.get(b"GNU.sparse.minor")) != (b"1", b"0"):
                raise self._bad("a sparse file of an unknown form")
            numbers, used = self._numbers_before_payload(stored)
            stored -= used
        elif b"GNU.sparse.map" in values:
            numbers = [self._decimal(text) for text in values[b"GNU.sparse.map"].split(b",") if text]
        else:
            wanted = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
            numbers = [self._decimal(value) for key, value in extended if key in wanted]
        if len(numbers) % 2:
            raise self._bad("a sparse file's map is odd")
        entry.pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
        return stored

    def _numbers_before_payload(self, stored: int) -> tuple[list[int], int]:
        data = bytearray()

        def line() -> int:
            nonlocal data
            while b"\n" not in data:
                if used[0] + BLOCK > stored:
                    raise self._bad("a sparse file's map is longer than the file")
                data += self._take(BLOCK)
                used[0] += BLOCK
            text, _, data = data.partition(b"\n")
            return self._decimal(bytes(text))

        used = [0]
        count = line()
        if count > SPARSE_PIECES_MAX:
            raise self._bad(f"a sparse file of {count} pieces")
        return [line() for _ in range(2 * count)], used[0]

    def _check_pieces(self, entry: Entry) -> None:
        end = 0
        for offset, size in entry.pieces or ():
            if offset < end or offset + size > entry.size_bytes:
                raise self._bad("a sparse file's pieces overlap or lie outside of it")
            end = offset + size
        if sum(size for _, size in entry.pieces or ()) != entry.stored_bytes:
            raise self._bad("a sparse file's pieces are not what is stored")

    def _records(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """`LENGTH KEY=VALUE\\n` each."""
        records: list[tuple[bytes, bytes]] = []
        at = 0
        while at < len(data) and data[at]:
            space = data.find(b" ", at, at + 10)
            if space < 0:
                raise self._bad("an extended header without a length")
            length = self._decimal(data[at:space])
            record = data[space + 1 : at + length]
            key, equals, value = record.partition(b"=")
            if at + length > len(data) or not equals or value[-1:] != b"\n":
                raise self._bad("an extended header's length is wrong")
            records.append((key, value[:-1]))
            at += length
        return records

    def _positive(self, field: bytes, what: str) -> int:
        number = _number(field)
        if number is None or not 0 <= number < 1 << 63:
            raise self._bad(f"a {what} is no number that can be")
        return number

    def _decimal(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 18:
            raise self._bad("an extended header's number is none")
        return int(text)

    def _time(self, text: bytes) -> int:
        whole, _, fraction = text.partition(b".")
        sign = -1 if whole.startswith(b"-") else 1
        digits = whole.lstrip(b"-") if sign < 0 else whole
        if not digits.isdigit() or len(digits) > 11 or not (fraction or b"0").isdigit():
            raise self._bad("a time is no number")
        return sign * (int(digits) * 1_000_000_000 + int((fraction[:9] or b"0").ljust(9, b"0")))


_WITHOUT_PAYLOAD = (LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO)


def _sum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 32


def _signed_sum(block: bytes) -> int:
    """Of writers whose characters are signed."""
    rest = block[:148] + block[156:]
    return sum(rest) - 256 * sum(byte > 127 for byte in rest) + 8 * 32


def _number(field: bytes) -> int | None:
    """Octal, or base 256 where the first bit is set; empty is 0."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.strip(b" \0")
    if not text:
        return 0
    return int(text, 8) if text.isdigit() and not text.strip(b"01234567") else None
