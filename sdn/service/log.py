"""The log: one line per event, key=value or JSON, on stderr or in a file.

Nothing secret is given to it; and what others sent (a path, a name), and may be a credential, is hidden in each line.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any, TextIO

from sdn.model.credential_text import hide_credentials
from sdn.model.errors import invalid
from sdn.service.startup import lean_imports

with lean_imports():
    import structlog

FORMATS = ("text", "json")


def one_line(error: BaseException) -> str:
    """An exception as one line: what, why, and for a fault of ours where."""
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    frames = traceback.extract_tb(error.__traceback__)
    return f"{text} (at {frames[-1].filename}:{frames[-1].lineno})" if frames else text


def _open_log(path: str) -> TextIO:
    try:
        return open(path, "a", buffering=1, encoding="utf-8")  # line-buffered: a killed daemon has lost no line
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise invalid(f"the log {path!r} cannot be opened: {reason}", "choose another --log FILE") from None


def _hide(_logger: Any, _name: str, line: Any) -> str:
    return hide_credentials(line)  # of a renderer: text


def set_up_log(path: str | None = None, form: str = "text", level: int = logging.INFO) -> TextIO:
    """Where every event goes from now on. Returns the stream, which stays open as long as the process.

    Raises: INVALID where the file cannot be opened.
    """
    stream = sys.stderr if path is None else _open_log(path)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"], drop_missing=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
            _hide,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Bridge()]
    root.setLevel(logging.WARNING)
    return stream


class _Bridge(logging.Handler):
    """What libraries say through `logging` becomes an event like any other."""

    def emit(self, record: logging.LogRecord) -> None:
        reason = {"reason": one_line(record.exc_info[1])} if record.exc_info and record.exc_info[1] else {}
        structlog.get_logger(part=record.name).log(record.levelno, record.getMessage(), **reason)


def get_logger(part: str) -> Any:
    """A logger of events; `part` names the part of the daemon. Lazy: it may be made before `set_up_log`."""
    return structlog.get_logger(part=part)
