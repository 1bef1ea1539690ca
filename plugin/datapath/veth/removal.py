"""The worker that deletes what is doomed.

One link deleted by itself waits 20 ms in the kernel; a hundred in a group take 32 ms together, but hold the lock that
every other change waits for: so they go by chunks, here, while nobody waits for them.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from typing import Protocol

from plugin.datapath.veth.ports import DOOMED_NOW
from plugin.kernel import link
from plugin.kernel.netlink import NetlinkError, NetlinkSocket

CHUNK = 100
"""Links of one deletion: others wait 13 ms for it, 271 ms for a thousand."""
_CLOSE_S = 30.0


class Place(Protocol):
    """A namespace that is open. `fd` None: this process's. `doomed`: the links whose deletion was asked for."""

    @property
    def fd(self) -> int | None: ...

    @property
    def doomed(self) -> set[int]: ...

    def close(self) -> None:
        """Let go of it."""


_Job = tuple[Place, list[int] | None]
"""Some links of a namespace; None: all that is in it, then the namespace itself."""


class Removal:
    """Deletes in its own time; `wait_idle` waits for it."""

    def __init__(self) -> None:
        self._jobs: collections.deque[_Job] = collections.deque()
        self._changed = threading.Condition()
        self._busy = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def schedule(self, opened: Place, indexes: list[int]) -> None:
        """Delete links that are doomed; those already waiting for it are not taken twice."""
        fresh = [index for index in indexes if index not in opened.doomed]
        if fresh:
            opened.doomed.update(fresh)
            self._put((opened, fresh))

    def retire(self, opened: Place) -> None:
        """Delete everything of a namespace that has no name any more, and close it."""
        self._put((opened, None))

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until nothing is left to do; False: it took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._busy, timeout_s)

    def close(self) -> None:
        """Finish what was begun, in bounded time."""
        self.wait_idle(_CLOSE_S)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)

    def _put(self, job: _Job) -> None:
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="hawse-removal", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: bool(self._jobs) or self._stopping)
                if not self._jobs:
                    return
                opened, indexes = self._jobs.popleft()
                self._busy = True
            with contextlib.suppress(OSError, NetlinkError):  # the namespace died by itself: nothing is left to delete
                _delete(opened, indexes)
            if indexes is None:
                opened.close()


def _delete(opened: Place, indexes: list[int] | None) -> None:
    with contextlib.closing(NetlinkSocket.open(opened.fd)) as netlink:
        doomed = _everything(netlink) if indexes is None else indexes
        for start in range(0, len(doomed), CHUNK):
            chunk = doomed[start : start + CHUNK]
            requests = [link.change(index, link.encode_group(DOOMED_NOW)) for index in chunk]
            netlink.execute([*requests, link.delete_group(DOOMED_NOW)])
            opened.doomed.difference_update(chunk)


def _everything(netlink: NetlinkSocket) -> list[int]:
    """All links of ours; carriers first, for a VNI is free again only when its device is gone."""
    links = [found for found in link.dump(netlink) if found.name.startswith("hw")]
    return [found.index for found in sorted(links, key=lambda found: (found.kind != "vxlan", found.kind != "veth"))]
