"""Finding the controller: the one rule that every command follows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from sdn.model.errors import invalid

RUN = "/run/hawse"
FILE = "client.json"
SOCKET = "controller.sock"


def find_controller(
    explicit: str | None = None,
    root: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The controller's URL: `--controller`, else HAWSE_CONTROLLER, else the root's client.json, else its socket.

    The root is `--root`, else HAWSE_ROOT, else /run/hawse. Raises: INVALID where client.json is broken.
    """
    environment = os.environ if environment is None else environment
    if explicit:
        return explicit
    if environment.get("HAWSE_CONTROLLER"):
        return environment["HAWSE_CONTROLLER"]
    run = root or environment.get("HAWSE_ROOT") or RUN
    path = os.path.join(os.path.abspath(run), FILE)
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except OSError:  # not written yet, or not for us to read: connecting to the socket says what is wrong
        return f"unix:{os.path.join(os.path.abspath(run), SOCKET)}"
    except ValueError as error:
        raise invalid(f"{path} is not JSON: {error}", "remove it; the controller writes it when it starts") from None
    url = content.get("controller") if isinstance(content, dict) else None
    if not isinstance(url, str) or not url:
        raise invalid(f"{path} does not name a controller", 'it holds {"controller": "unix:/…/controller.sock"}')
    return url
