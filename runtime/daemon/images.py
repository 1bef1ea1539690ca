"""The image store as the daemon sees it."""

from __future__ import annotations

import os

from runtime.daemon.plans import ImageView
from runtime.image.store import ImageStore


class StoredImages:
    """What a plan needs of `ImageStore`."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def resolve(self, reference: str) -> ImageView:
        """By name or id. Raises: NOT_FOUND, INVALID."""
        image = self._store.resolve(reference)
        return ImageView(image.id, image.config, tuple(os.fspath(layer) for layer in image.layers), image.binds)

    def count(self) -> int:
        """How many there are."""
        return len(self._store.images())
