"""Logging of requests as lines of JSON."""

import json
import logging
import sys
import time

_log = logging.getLogger("sparring.serve")

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def set_logging(kind: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False


class _Json(logging.Formatter):
    """Formatter of a line of JSON for each event, with its context."""

    def format(self, record: logging.LogRecord) -> str:
        about = {key: value for key, value in vars(record).items() if key not in _PLAIN}
        when = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z"
        )
        line = {"time": when, "level": record.levelname, "event": record.getMessage(), **about}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
