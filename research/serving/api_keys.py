"""API keys, kept as hashes in a file that is read anew whenever it changes.

A key is 256 random bits, so its SHA-256 cannot be searched for, and needs no slow hash. The file is
JSON: `{"keys": [{"name": "alice", "sha256": "...", "created": "..."}]}`. A key that is removed from
it is refused at once.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

from sparring.errors import UserError

PREFIX = "sk-"


def add(path: Path, name: str) -> str:
    """Create a key, add its hash to the file, and return the key, which is stored nowhere else.

    Raises:
        UserError: the name is invalid or taken, or the file cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.@-]{1,64}", name):
        raise UserError(f"{name}: a key's name has letters, digits and _.@-, 64 at most.")
    entries = read(path) if path.exists() else []
    if any(entry["name"] == name for entry in entries):
        raise UserError(f"{path} has a key of {name}: revoke it first, or take another name.")
    key = PREFIX + secrets.token_urlsafe(32)
    _write(
        path,
        [
            *entries,
            {"name": name, "sha256": hashed(key), "created": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
        ],
    )
    return key


def revoke(path: Path, name: str) -> None:
    """Remove a key from the file.

    Raises:
        UserError: there is no key of that name, or the file cannot be written.
    """
    entries = read(path)
    left = [entry for entry in entries if entry["name"] != name]
    if len(left) == len(entries):
        raise UserError(f"{path} has no key of {name}.")
    _write(path, left)


def hashed(key: str) -> str:
    """Return the hash of a key, which is all that is kept of it."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of keys.

    Raises:
        UserError: the file cannot be read or is no file of keys.
    """
    try:
        entries = json.loads(path.read_text())["keys"]
        if all(
            re.fullmatch("[0-9a-f]{64}", entry["sha256"]) and isinstance(entry["name"], str)
            for entry in entries
        ):
            return entries
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}. `sparring keys {path} add NAME` makes one."
        ) from error
    except (ValueError, TypeError, KeyError):
        pass
    raise UserError(f"{path} is no file of keys: make one with `sparring keys {path} add NAME`.")


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(beside, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(json.dumps({"keys": entries}, indent=1) + "\n")
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error


class Keys:
    """Current keys of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = 0
        self._entries = read(path)

    def owner(self, presented: str) -> str | None:
        """Return the name of the key's owner, or None for an unknown key.

        A wrong key takes as long as a right one.
        """
        self._refresh()
        digest = hashed(presented)
        found = None
        for entry in self._entries:
            if hmac.compare_digest(entry["sha256"], digest):
                found = entry["name"]
        return found

    def _refresh(self) -> None:
        try:
            mark = self.path.stat().st_mtime_ns
            if mark != self._mark:
                self._entries = read(self.path)
                self._mark = mark
        except OSError:  # without the file every key is refused
            self._entries = []
            self._mark = 0
        except UserError:  # with a damaged file, too
            self._entries = []
