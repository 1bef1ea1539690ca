"""The pseudo-image `host`: this machine's own programs, read-only, over a skeleton that the store makes.

What is bound is /usr, and /bin, /sbin, /lib* where they are directories; where they are links into /usr the skeleton
has the same links. /etc/alternatives is bound too, as long as all in it is links and what anybody may read: copying
hundreds of links would be most of a skeleton's making. The rest is empty directories and a short list of files of /etc
that programs need and that anybody may read: what is not listed is not there. Accounts are made up: root and nobody.

A skeleton is never changed, for containers may be mounted over it: when a listed file changed, another one is made,
and the older goes once the machine has been booted since it was last the current one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.image.configuration import machine_architecture
from runtime.image.files import write_whole
from runtime.image.layers import TREE
from sdn.model.container import ImageInfo

HOST_NAMES = ("host:latest",)

_CONFIG: dict[str, Any] = {
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "Cmd": ["/bin/sh"],
    "WorkingDir": "/",
}
_CONFIGURATION = {"os": "linux", "rootfs": {"type": "host", "diff_ids": []}, "config": _CONFIG}
HOST_ID = "sha256:" + hashlib.sha256(json.dumps(_CONFIGURATION).encode()).hexdigest()
"""The same whatever is installed, so that a container finds its image again after an upgrade of the machine."""

_PROGRAMS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_DIRECTORIES = {
    "dev": 0o755, "etc": 0o755, "home": 0o755, "mnt": 0o755, "opt": 0o755, "proc": 0o555, "root": 0o700,
    "run": 0o755, "srv": 0o755, "sys": 0o555, "tmp": 0o1777, "var": 0o755, "var/cache": 0o755, "var/lib": 0o755,
    "var/log": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_LINKS = {"var/run": "/run", "var/lock": "/run/lock"}
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}
_COPIED = (
    "alternatives", "bash.bashrc", "debian_version", "gai.conf", "host.conf", "inputrc", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "magic", "mime.types", "networks", "os-release", "pki/ca-trust/extracted",
    "pki/tls/certs", "profile", "protocols", "python3", "python3.11", "redhat-release", "services", "shells",
    "ssl/certs/ca-certificates.crt", "ssl/openssl.cnf", "terminfo", "timezone",
)  # fmt: skip
_FILE_BYTES_MAX = 4 << 20
"""A certificate bundle has 250 kB, a cache of libraries 100 kB; what is larger is something else."""
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
"""Debian's OpenSSL looks for a link per certificate by its hash; where there is the bundle, a variable names it."""
_ALTERNATIVES = "etc/alternatives"
_FORM = 2
"""Raised when this module makes another skeleton of the same files."""


class HostImage:
    """Skeletons below one directory. `root`: the machine, elsewhere in a test."""

    def __init__(self, directory: Path, root: Path = Path("/")) -> None:
        self._directory = directory
        self._root = root
        self._current: Path | None = None
        self._checked_ns, self._harmless = -1, False

    @property
    def config(self) -> dict[str, Any]:
        """The image configuration's `config`."""
        if not (self._root / _BUNDLE).exists():
            return _CONFIG
        return {**_CONFIG, "Env": [*_CONFIG["Env"], f"SSL_CERT_FILE=/{_BUNDLE}"]}

    def layer(self) -> Path:
        """The current skeleton's tree; made where there is none yet."""
        if self._current is None:
            self.refresh()
        assert self._current is not None
        return self._current / TREE

    def binds(self) -> tuple[tuple[str, str], ...]:
        """(source, target) of what is bound read-only over the skeleton."""
        names = [name for name in _PROGRAMS if _is_directory(self._root / name)]
        if self._alternatives_bound():
            names.append(_ALTERNATIVES)
        return tuple((str(self._root / name), f"/{name}") for name in names)

    def _alternatives_bound(self) -> bool:
        """Whether /etc/alternatives is there, and all in it is links and what anybody may read."""
        try:
            changed_ns = os.stat(self._root / _ALTERNATIVES).st_mtime_ns
            if changed_ns != self._checked_ns:
                with os.scandir(self._root / _ALTERNATIVES) as entries:
                    self._harmless = all(entry.is_symlink() or _is_for_anybody(entry.stat()) for entry in entries)
                self._checked_ns = changed_ns
        except OSError:
            return False
        return self._harmless

    def info(self) -> ImageInfo:
        """As it is listed."""
        return ImageInfo(id=HOST_ID, names=HOST_NAMES, architecture=machine_architecture(), config=self.config)

    def refresh(self) -> list[Path]:
        """Make a skeleton of the machine as it is now, unless the last is one. Returns those that may be deleted.

        Looks at some hundred files' status, and at no content unless something changed.
        """
        sources = list(self._sources())
        name = self._fingerprint(sources)
        target = self._directory / name
        if not target.is_dir():
            building = self._directory / f".{secrets.token_hex(8)}"
            self._build(building, sources)
            with contextlib.suppress(FileExistsError, OSError):  # somebody else was as quick
                os.rename(building, target)
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        write_whole(target / "boot", boot)
        self._current = target
        return [
            Path(entry.path)
            for entry in os.scandir(self._directory)
            if entry.name != name and _boot(Path(entry.path)) != boot
        ]

    def _sources(self) -> Iterator[tuple[str, os.stat_result]]:
        """What is copied: paths below the root; files that anybody may read, and links."""
        # Hundreds of files at each start of a daemon: plain strings, where Path would take most of the time.
        root = os.fspath(self._root)
        bound = ("alternatives",) if self._alternatives_bound() else ()
        for listed in _COPIED:
            if listed in bound:
                continue
            stack = [f"etc/{listed}"]
            while stack:
                path = stack.pop()
                try:
                    status = os.lstat(f"{root}/{path}")
                    names = os.listdir(f"{root}/{path}") if stat.S_ISDIR(status.st_mode) else []
                except OSError:  # not on this machine, or gone this moment
                    continue
                stack += [f"{path}/{name}" for name in sorted(names, reverse=True)]
                plain = _is_for_anybody(status) and status.st_size <= _FILE_BYTES_MAX
                if plain or stat.S_ISLNK(status.st_mode):
                    yield path, status

    def _fingerprint(self, sources: list[tuple[str, os.stat_result]]) -> str:
        facts = [(path, status.st_mode, status.st_size, status.st_mtime_ns) for path, status in sources]
        links = [(name, os.readlink(self._root / name)) for name in _PROGRAMS if (self._root / name).is_symlink()]
        made = (_FORM, facts, links, self._alternatives_bound(), _TEXTS, _LINKS)
        return hashlib.sha256(repr(made).encode()).hexdigest()[:16]

    def _build(self, building: Path, sources: list[tuple[str, os.stat_result]]) -> None:
        tree = building / TREE
        tree.mkdir(parents=True)
        for name, mode in _DIRECTORIES.items():
            (tree / name).mkdir()
            (tree / name).chmod(mode)
        if self._alternatives_bound():
            (tree / _ALTERNATIVES).mkdir()
        for name in _PROGRAMS:
            if (self._root / name).is_symlink():
                os.symlink(os.readlink(self._root / name), tree / name)
            elif _is_directory(self._root / name):
                (tree / name).mkdir()
        for name, target in _LINKS.items():
            os.symlink(target, tree / name)
        directories = [os.fspath(path) for path in (building, tree, tree / "etc", *(tree / name for name in _PROGRAMS))]
        for path, status in sources:
            _make_parents(f"{tree}/{path}", directories)
            with contextlib.suppress(FileNotFoundError):  # gone this moment
                _copy(f"{self._root}/{path}", f"{tree}/{path}", status.st_mode)
        for name, text in _TEXTS.items():
            (tree / name).write_text(text)
        for directory in directories:
            if _is_directory(Path(directory)):
                Path(directory).chmod(0o755)  # whatever this process's umask is


def _make_parents(path: str, made: list[str]) -> None:
    """The directories above `path` that are not there yet, noted in `made`. Neighbours come one after another."""
    missing = []
    while (path := os.path.dirname(path)) not in made:
        missing.append(path)
    for directory in reversed(missing):
        os.mkdir(directory)
        made.append(directory)


def _copy(source: str, target: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    else:
        shutil.copyfile(source, target, follow_symlinks=False)
        os.chmod(target, mode & 0o755)


def _is_for_anybody(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o004)


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _boot(skeleton: Path) -> bytes:
    try:
        return (skeleton / "boot").read_bytes()
    except OSError:
        return b""
