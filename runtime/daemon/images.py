"""The image store as the daemon sees it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Any

from runtime.daemon.containers import Containers
from runtime.daemon.plans import ImageView
from runtime.daemon.surroundings import Surroundings
from runtime.image import verbs
from runtime.image.store import ImageStore
from sdn.model.container import ImageInfo
from sdn.model.errors import invalid
from sdn.model.runtime import (
    ImageImportRequest,
    ImageInspectRequest,
    ImageListRequest,
    ImageLoadRequest,
    ImageRemoveRequest,
    ImageSaveRequest,
    Progress,
    Request,
)
from sdn.service.contract_server import Answer, item_reply, result_reply


class StoredImages:
    """What a plan needs of `ImageStore`. `ground`: the layer below every image's."""

    def __init__(self, store: ImageStore, ground: str) -> None:
        self._store = store
        self._ground = ground
        self._known: dict[str, ImageView] = {}

    def resolve(self, reference: str) -> ImageView:
        """By name or id. Raises: NOT_FOUND, INVALID.

        What an id stands for never changes, so it is remembered; layers that were taken away are noticed.
        """
        known = self._known.get(reference)
        if known is not None and all(os.path.isdir(layer) for layer in known.layers):
            return known
        image = self._store.resolve(reference)
        layers = (*(os.fspath(layer) for layer in image.layers), self._ground)
        view = self._known[image.id] = ImageView(image.id, image.config, layers, image.binds)
        return view

    def count(self) -> int:
        """How many there are."""
        return len(self._store.images())


async def sweep_if_due(store: ImageStore) -> None:
    """What loads and removals left that were killed; a worker does it, so it is begun only where there is something."""
    if any(os.listdir(store.directory / name) for name in ("tmp", "trash")):
        await verbs.sweep(store)


class ImageVerbs:
    """The verbs IMAGE_*: their work is elsewhere; here they become frames and events."""

    def __init__(self, around: Surroundings, containers: Containers, store: ImageStore) -> None:
        self._around = around
        self._containers = containers
        self._store = store

    async def __call__(self, request: Request, descriptor: int | None) -> AsyncGenerator[bytes | Answer, None]:
        """The reply: a stream of progress and a result. Raises there: HawseError."""
        match request:
            case ImageLoadRequest():
                return self._frames("image-load", verbs.load(self._store, request, descriptor))
            case ImageImportRequest():
                return self._frames("image-load", verbs.import_tree(self._store, request, descriptor))
            case ImageSaveRequest():
                return self._frames("", verbs.save(self._store, request, descriptor))
            case ImageListRequest():
                return self._frames("", verbs.ls(self._store, request))
            case ImageInspectRequest():
                return self._frames("", verbs.inspect(self._store, request))
            case ImageRemoveRequest():
                users = self._containers.users_of_images()
                return self._frames("image-remove", verbs.remove(self._store, request, descriptor, users))
            case _:
                raise invalid(f"this daemon does not know the verb of {type(request).__name__}")

    async def _frames(self, what: str, answers: AsyncGenerator[Any, None]) -> AsyncGenerator[bytes | Answer, None]:
        try:
            async for answer in answers:
                if isinstance(answer, Progress):
                    yield item_reply(answer)
                    continue
                if what:
                    self._note(what, answer)
                yield result_reply(answer)
        finally:
            await answers.aclose()

    def _note(self, what: str, answer: dict[str, Any]) -> None:
        for one in answer.get("items", answer.get("removed", ())):
            if isinstance(one, ImageInfo):
                self._around.events.note(what, one.id, one.names[0] if one.names else "")
            else:
                self._around.events.note(what, str(one))
