"""The worker: one load, import or save in a process of its own, `python -I -m runtime.image.worker JOB`.

JOB is JSON: {"do", "store", "archive", "report", …}. The archive comes in, or goes out, by the descriptor `archive`;
what is told goes as lines of JSON to the descriptor `report`: {"progress"}, then {"result"} or {"error"}. When nobody
reads them any more, it ends.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from runtime.image.files import remove_trees, store_error
from runtime.image.load import Source, import_tree, load
from runtime.image.save import save
from runtime.image.store import ImageStore
from sdn.model.errors import HawseError, Kind

_EVERY_S = 0.1


class _Reporter:
    """Lines to whoever asked. What is on its way is told a few times a second."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._next = 0.0

    def tell(self, line: dict[str, Any]) -> None:
        """Raises: BrokenPipeError."""
        data = memoryview(msgspec.json.encode(line) + b"\n")
        while data:
            data = data[os.write(self.fd, data) :]

    def progress(self, what: str, done: int, total: int, finished: bool) -> None:
        """See `contents.Report`."""
        now = time.monotonic()
        if finished or now >= self._next:
            self._next = now + _EVERY_S
            facts = {"what": what, "done_bytes": done, "total_bytes": max(total, done) if total else 0}
            self.tell({"progress": {**facts, "finished": finished}})


def _run(job: dict[str, Any], reporter: _Reporter) -> Any:
    store = ImageStore(Path(job["store"]))
    archive = job["archive"]
    match job["do"]:
        case "load":
            return load(store, Source(archive, reporter.fd), job["name"], reporter.progress)
        case "import":
            return import_tree(store, Source(archive, reporter.fd), job["name"], job["config"], reporter.progress)
        case "save":
            return save(store, job["images"], archive, reporter.progress)
        case "sweep":
            return store.sweep()
        case unknown:
            raise AssertionError(unknown)


def _attempt(job: dict[str, Any], reporter: _Reporter) -> dict[str, Any]:
    what = {"load": "cannot load", "import": "cannot import", "save": "cannot save", "sweep": "cannot remove"}
    try:
        return {"result": _run(job, reporter)}
    except HawseError as error:
        failed = error
    except BrokenPipeError:
        raise
    except OSError as error:
        failed = store_error(error, what[job["do"]])
    except MemoryError:
        failed = HawseError(Kind.EXHAUSTED, f"{what[job['do']]}: memory is used up", hint="free some and try again")
    if job["do"] in ("load", "import"):  # layers of an image that did not come to be
        remove_trees(ImageStore(Path(job["store"])).collect())
    return {"error": {"kind": failed.kind, "message": failed.message, "hint": failed.hint, "facts": failed.facts}}


def main(argv: list[str]) -> int:
    """Do the job; the exit code says nothing more than the report did."""
    job = msgspec.json.decode(argv[1])
    reporter = _Reporter(job["report"])
    try:
        answer = _attempt(job, reporter)
        reporter.tell(answer)
    except BrokenPipeError:  # whoever asked is gone, and cleans up behind us if we are killed
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
