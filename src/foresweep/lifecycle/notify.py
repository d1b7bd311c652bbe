"""Tell somebody: a command that is handed JSON on its standard input, or a URL that gets it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from foresweep.errors import ForesweepError, UsageError

PATIENCE_S = 30.0
STATE = "FORESWEEP_STATE"
"""The state's word, in the environment of the command."""


def notify(target: str, message: Mapping[str, Any], *, patience_s: float = PATIENCE_S) -> None:
    """Hand a message to a command (its words as a shell would split them; no shell is started) or
    POST it to an http or https URL.

    Raises UsageError for a command that is not there or a URL that is none, ForesweepError where
    nobody took the message: whoever relies on being told must hear that he was not. A URL is named
    by its host alone, as webhooks carry their secret in the path.
    """
    body = json.dumps(message, allow_nan=False).encode()
    if "://" in target:
        _post(target, body, patience_s)
    else:
        _run(target, body, str(message.get("state", "")), patience_s)


def _post(url: str, body: bytes, patience_s: float) -> None:
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise UsageError(f"--notify {place.scheme}://...: give an http or https URL, or a command")
    request = Request(url, body, {"Content-Type": "application/json"}, method="POST")
    try:
        with urlopen(request, timeout=patience_s):
            return
    except HTTPError as error:
        why = f"answered {error.code}"
    except (URLError, OSError) as error:
        why = f"was not reached: {getattr(error, 'reason', error)}"
    raise ForesweepError(f"--notify: {place.hostname} {why}; nobody was told")


def _run(command: str, body: bytes, state: str, patience_s: float) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--notify {command!r}: {error}") from error
    if not words:
        raise UsageError("--notify: give a command or an http(s) URL")
    try:
        done = subprocess.run(
            words,
            input=body,
            capture_output=True,
            timeout=patience_s,
            check=False,
            env=os.environ | {STATE: state},
        )
    except subprocess.TimeoutExpired as error:
        raise ForesweepError(
            f"--notify {words[0]} did not end within {patience_s:g} s; nobody may have been told"
        ) from error
    except OSError as error:
        raise UsageError(f"--notify {words[0]}: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ForesweepError(
            f"--notify {words[0]} ended with {done.returncode}"
            f"{': ' + said[-1] if said else ''}; nobody may have been told"
        )
