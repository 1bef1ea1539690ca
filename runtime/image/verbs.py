"""The verbs IMAGE_* of the runtime's protocol: one asynchronous generator each, which yields `Progress` and, last, the
result. The work is done by a worker process; the loop only listens. When a generator is closed (the client hung up) its
worker is killed and what it left is removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec

from runtime.image.store import ImageStore
from sdn.model.container import ImageInfo
from sdn.model.errors import HawseError, Kind, invalid
from sdn.model.runtime import (
    ImageImportRequest,
    ImageInspectRequest,
    ImageListRequest,
    ImageLoadRequest,
    ImageRemoveRequest,
    ImageSaveRequest,
    Progress,
)

Loading = AsyncGenerator["Progress | dict[str, list[ImageInfo]]", None]

_LINE_BYTES_MAX = 1 << 20


async def load(store: ImageStore, request: ImageLoadRequest, fd: int | None) -> Loading:
    """IMAGE_LOAD: `fd` is an archive or a directory's."""
    async with contextlib.aclosing(_work(store, {"do": "load", "name": request.name}, _given(fd))) as answers:
        async for answer in answers:
            yield answer if isinstance(answer, Progress) else _loaded(store, answer)


async def import_tree(store: ImageStore, request: ImageImportRequest, fd: int | None) -> Loading:
    """IMAGE_IMPORT: `fd` is an archive's or a directory's."""
    config = {
        **({"Cmd": list(request.command)} if request.command else {}),
        **({"Env": list(request.env)} if request.env else {}),
        **({"WorkingDir": request.workdir} if request.workdir else {}),
        **({"User": request.user} if request.user else {}),
    }
    job = {"do": "import", "name": request.name, "config": config}
    async with contextlib.aclosing(_work(store, job, _given(fd))) as answers:
        async for answer in answers:
            yield answer if isinstance(answer, Progress) else _loaded(store, answer)


async def save(
    store: ImageStore, request: ImageSaveRequest, fd: int | None
) -> AsyncGenerator[Progress | dict[str, str], None]:
    """IMAGE_SAVE: the archive goes to `fd`."""
    if not request.images:
        raise invalid("no image is named", "name one, or several")
    for reference in request.images:
        store.find(reference)  # said at once, not by the worker
    async with contextlib.aclosing(_work(store, {"do": "save", "images": list(request.images)}, _given(fd))) as answers:
        async for answer in answers:
            yield answer if isinstance(answer, Progress) else {}


async def ls(
    store: ImageStore, request: ImageListRequest, fd: int | None = None
) -> AsyncGenerator[dict[str, list[ImageInfo]], None]:
    """IMAGE_LS."""
    yield {"items": store.images()}


async def inspect(
    store: ImageStore, request: ImageInspectRequest, fd: int | None = None
) -> AsyncGenerator[ImageInfo, None]:
    """IMAGE_INSPECT."""
    yield store.inspect(request.image)


async def remove(
    store: ImageStore, request: ImageRemoveRequest, fd: int | None, users: Mapping[str, Sequence[str]]
) -> AsyncGenerator[dict[str, list[str]], None]:
    """IMAGE_RM. `users`: which containers are made of which image (its id). Layers are deleted when it is closed."""
    removed = store.remove(request.image, request.force, users)
    if store.layers.trash():
        await sweep(store)
    yield removed


async def sweep(store: ImageStore) -> None:
    """Delete what nobody uses: what removals and killed loads left. The loop goes on meanwhile."""
    async with contextlib.aclosing(_work(store, {"do": "sweep"}, None)) as answers:
        async for _ in answers:
            pass


def _given(fd: int | None) -> int:
    if fd is None:
        raise invalid("no descriptor came with the request", "send the archive's, or a directory's")
    return fd


def _loaded(store: ImageStore, ids: Sequence[str]) -> dict[str, list[ImageInfo]]:
    return {"items": [store.inspect(image) for image in ids]}


async def _work(store: ImageStore, job: Mapping[str, Any], fd: int | None) -> AsyncGenerator[Any, None]:
    """Run a worker: its progress, then its result. Raises: what the worker says."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # not the caller's own: that one may be 0, 1 or 2, which the worker has others of
    archive = -1 if fd is None else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        given = {"store": str(store.directory), "archive": archive, "report": writer}
        text = msgspec.json.encode({**job, **given}).decode()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "runtime.image.worker", text,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            pass_fds=(writer,) if fd is None else (writer, archive),
        )  # fmt: skip
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
        if fd is not None:
            os.close(archive)
    stream = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb")
    )
    told = False
    try:
        while line := await stream.readline():
            answer = msgspec.json.decode(line)
            if "progress" in answer:
                yield msgspec.convert(answer["progress"], Progress)
                continue
            told = True
            if "error" in answer:
                raise _failure(answer["error"])
            yield answer["result"]
        if not told:
            code = await process.wait()
            reason = f"signal {-code}" if code < 0 else f"code {code}"
            raise HawseError(Kind.INTERNAL, f"the worker ended by {reason}", hint="look at the daemon's log")
    finally:
        transport.close()
        if process.returncode is None and not told:
            process.kill()
        await process.wait()
        if not told and job["do"] != "sweep":
            await sweep(store)


def _failure(error: Mapping[str, Any]) -> HawseError:
    return HawseError(Kind(error["kind"]), error["message"], hint=error["hint"], facts=error["facts"])
