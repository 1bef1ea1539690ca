"""What runs in a container, as a topology file says it: image, command, environment, limits, volumes.

Pure: whether an image or a volume's path is there, `lab up` finds out (see `images`).
"""

from __future__ import annotations

import argparse
import re

from sdn.cli.quantities import parse_size
from sdn.model.container import MEMORY_BYTES_MIN, MountKind, MountSpec, Restart
from topologies.document import Place
from topologies.values import ImageSource, Workload

WORKLOAD_FIELDS = (
    "image", "command", "env", "user", "workdir", "memory", "cpus", "pids", "volumes", "read_only", "init", "restart",
    "cap_add", "cap_drop",
)  # fmt: skip
HOST_IMAGE = "host"
"""The pseudo-image: a read-only view of the machine's programs and libraries."""
MEMORY_BYTES_MAX = 1 << 50
CPUS_MIN, CPUS_MAX = 0.01, 4096.0
"""The least that the kernel takes for a quota, and more than machines have."""
PIDS_MAX = 1 << 22
"""The kernel's own bound of all processes (PID_MAX_LIMIT)."""
WORDS_MAX = 1000
"""Of a command or an environment; a request to the runtime has at most a mebibyte."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_VOLUME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_CPUS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?", re.ASCII)


def parse_workload(fields: dict[str, Place]) -> Workload:
    """A container's own keys (others are ignored). Raises: INVALID with file and line."""
    volumes = fields.get("volumes")
    return Workload(
        image=_image(fields["image"]) if "image" in fields else None,
        command=_words(fields.get("command"), "a command"),
        env=_environment(fields.get("env")),
        user=_word(fields["user"], "a user") if "user" in fields else "",
        workdir=_absolute(fields["workdir"], fields["workdir"].text()) if "workdir" in fields else "",
        memory_bytes=_memory(fields["memory"]) if "memory" in fields else 0,
        cpus=_cpus(fields["cpus"]) if "cpus" in fields else 0.0,
        pids=fields["pids"].integer(1, PIDS_MAX) if "pids" in fields else 0,
        mounts=_volumes(volumes) if volumes else (),
        line=volumes.line if volumes else 0,
        read_only=fields["read_only"].boolean() if "read_only" in fields else False,
        init=fields["init"].boolean() if "init" in fields else False,
        restart=Restart(fields["restart"].choice("policy", list(Restart))) if "restart" in fields else Restart.NO,
        cap_add=_words(fields.get("cap_add"), "capabilities"),
        cap_drop=_words(fields.get("cap_drop"), "capabilities"),
    )


def _size(at: Place) -> int:
    try:
        return parse_size(at.text())
    except argparse.ArgumentTypeError as error:
        raise at.refuse(str(error)) from None


def _memory(at: Place) -> int:
    size = _size(at)
    if not MEMORY_BYTES_MIN <= size <= MEMORY_BYTES_MAX:
        raise at.refuse(
            f"{at.text()} is not a limit of memory from {MEMORY_BYTES_MIN >> 20}M to {MEMORY_BYTES_MAX >> 40}T",
            "with less not even a process starts" if size < MEMORY_BYTES_MIN else "leave it out for no limit",
        )
    return size


def _cpus(at: Place) -> float:
    text = at.text()
    if not _CPUS.fullmatch(text) or not CPUS_MIN <= float(text) <= CPUS_MAX:
        raise at.refuse(f"{text!r} is not a number of processors from {CPUS_MIN:g} to {CPUS_MAX:g}", "write 0.5 or 2")
    return float(text)


def _image(at: Place) -> ImageSource | None:
    if at.is_text():
        path = _word(at, "an image")
        return None if path == HOST_IMAGE else ImageSource(path=path, name="", root=None, line=at.line)
    fields = at.fields(("load", "import", "name"))
    ways = [key for key in ("load", "import") if key in fields]
    if len(ways) != 1:
        what = "both load and import" if ways else "neither load nor import"
        raise at.refuse(
            f"an image is loaded from an archive or imported from a root file system, this one has {what}",
            "write {load: web.tar} or {import: rootfs.tar.zst, name: web}",
        )
    name = _word(fields["name"], "an image's name") if "name" in fields else ""
    return ImageSource(path=_word(fields[ways[0]], "a path"), name=name, root=ways[0] == "import", line=at.line)


def _word(at: Place, what: str) -> str:
    text = at.text()
    if not text or not text.isprintable():
        raise at.refuse(f"{text!r} is not {what}")
    return text


def _words(at: Place | None, what: str) -> tuple[str, ...]:
    items = at.items() if at else []
    if at and len(items) > WORDS_MAX:
        raise at.refuse(f"{what} of {len(items)} words: at most {WORDS_MAX} can be")
    for item in items:
        if "\0" in item.text():
            raise item.refuse("a zero byte cannot be passed to a process")
    if items and not items[0].text():
        raise items[0].refuse(f"{what} cannot begin with an empty word")
    return tuple(item.text() for item in items)


def _environment(at: Place | None) -> tuple[str, ...]:
    """`{K: V}` or `[K=V]`; in the file's order."""
    if at is None:
        return ()
    if at.is_list() or at.is_text():
        pairs = [(item, *item.text().partition("=")) for item in at.items()]
        for item, key, equals, _ in pairs:
            if not equals:
                raise item.refuse(f"{item.text()!r} is not a variable", f"write {key or 'KEY'}=VALUE")
        found = [(item, key, value) for item, key, _, value in pairs]
    else:
        found = [(item, key, "" if item.is_absent() else item.text()) for key, item in at.names().items()]
    if len(found) > WORDS_MAX:
        raise at.refuse(f"an environment of {len(found)} variables: at most {WORDS_MAX} can be")
    for item, key, value in found:
        if not _VARIABLE.fullmatch(key) or "\0" in value:
            raise item.refuse(f"{key!r} is not a variable's name", "use letters, digits and '_'")
    return tuple(f"{key}={value}" for _, key, value in found)


def _volumes(at: Place) -> tuple[MountSpec, ...]:
    mounts: list[MountSpec] = []
    for item in at.items():
        mount = _volume_text(item) if item.is_text() else _volume_fields(item)
        if any(mount.target == other.target for other in mounts):
            raise item.refuse(f"something is mounted at {mount.target} already")
        mounts.append(mount)
    return tuple(mounts)


def _volume_text(at: Place) -> MountSpec:
    """`SOURCE:TARGET[:ro|:rw]`."""
    source, *rest = _word(at, "a volume").split(":")
    if len(rest) not in (1, 2) or not source:
        raise at.refuse(f"{at.text()!r} is not a volume", "write SOURCE:/TARGET, or SOURCE:/TARGET:ro")
    if len(rest) == 2 and rest[1] not in ("ro", "rw"):
        raise at.unknown(rest[1], "mode", ("ro", "rw"))
    return _volume(at, source, rest[0], read_only=rest[1:] == ["ro"])


def _volume_fields(at: Place) -> MountSpec:
    fields = at.fields(("source", "target", "read_only", "tmpfs"))
    if "target" not in fields:
        raise at.refuse("a volume needs a target", "write {source: ./data, target: /data}")
    target = fields["target"].text()
    if ("source" in fields) == ("tmpfs" in fields):
        raise at.refuse("a volume has a source or is a tmpfs", "write {tmpfs: 64M, target: /cache} for memory")
    if "tmpfs" in fields:
        if "read_only" in fields:
            raise fields["read_only"].refuse("memory that nobody may write to is of no use", "leave it out")
        size = _size(fields["tmpfs"])
        return MountSpec(kind=MountKind.TMPFS, target=_absolute(fields["target"], target), size_bytes=size)
    read_only = fields["read_only"].boolean() if "read_only" in fields else False
    return _volume(at, _word(fields["source"], "a source"), target, read_only=read_only)


def _volume(at: Place, source: str, target: str, *, read_only: bool) -> MountSpec:
    """A source with a slash in it, or `.`, is a path; any other is a volume's name."""
    if "/" in source or source in (".", ".."):
        kind = MountKind.BIND
    elif _VOLUME.fullmatch(source):
        kind = MountKind.VOLUME
    else:
        raise at.refuse(f"{source!r} is neither a path nor a volume's name", "write ./NAME for a path")
    return MountSpec(kind=kind, source=source, target=_absolute(at, target), read_only=read_only)


def _absolute(at: Place, path: str) -> str:
    if not path.startswith("/") or not path.isprintable():
        raise at.refuse(f"{path!r} is not an absolute path", "inside of the container it begins with /")
    return path
