"""POST JSON to servers that fail, stall and push back, until there is an answer or reason to give up."""

from __future__ import annotations

import email.utils
import http.client
import itertools
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from leafiqa.teachers.protocol import TeacherError, TeacherUnusable

_LONGEST_WAIT = 60.0
# What asking again may cure.
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}


class Refused(TeacherError):
    """The server understood and said no.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Servers:
    """Servers that answer alike, asked in turn.

    Args:
        addresses: such as `http://127.0.0.1:8000/v1`.
        key: sent as a bearer token; written nowhere.
        timeout: seconds to wait for an answer.
        attempts: how often a question is asked before it is given up.
        concurrency: requests under way at once; a question that waits to be asked again is not under way.
        first_wait: seconds before the second attempt; doubled for each further one, with jitter.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        key: str | None = None,
        timeout: float = 120.0,
        attempts: int = 6,
        concurrency: int = 8,
        first_wait: float = 1.0,
    ) -> None:
        self.addresses = [address.rstrip("/") for address in addresses]
        self._key, self._timeout, self._attempts, self._first_wait = key, timeout, attempts, first_wait
        self._turn = itertools.cycle(self.addresses)
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(concurrency)
        self._not_before = dict.fromkeys(self.addresses, 0.0)
        self.retries = 0
        self._random = random.Random()  # the program's own random state is left alone

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON answer to a request.

        Raises:
            Refused: a server refuses the request as such (400, 404, 422, ...).
            TeacherUnusable: the key is refused.
            TeacherError: no answer after all attempts.
        """
        content = json.dumps(body).encode()
        why = ""
        for attempt in range(self._attempts):
            address = self._next()
            try:
                with self._slots:
                    return self._once(address + path, content, self._timeout)
            except urllib.error.HTTPError as error:
                why = f"{address}: HTTP {error.code}: {_reason(error)}"
                if error.code in (401, 403):
                    raise TeacherUnusable(f"{why}; set the API key's environment variable") from error
                if error.code not in _PASSING:
                    raise Refused(error.code, why) from error
                wait = _retry_after(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException, ValueError) as error:
                # No connection, reset, timeout, half an answer, no JSON.
                why, wait = f"{address}: {type(error).__name__}: {error}", None
            if attempt + 1 == self._attempts:
                break
            with self._lock:
                self.retries += 1
            # Full jitter: those that were refused together must not come back together.
            backoff = min(_LONGEST_WAIT, self._first_wait * 2**attempt) * self._random.uniform(0.5, 1.0)
            if wait is not None:
                self._hold(address, wait)
                backoff = min(wait, _LONGEST_WAIT) + self._random.uniform(0, 0.1 * self._first_wait)
            time.sleep(backoff)
        raise TeacherError(f"no answer after {self._attempts} attempts; the last: {why}")

    def once(self, url: str, body: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
        """Return the JSON answer to a request that is made once.

        Raises:
            OSError, ValueError: there is none.
        """
        return self._once(url, json.dumps(body).encode(), timeout)

    def _once(self, url: str, content: bytes, timeout: float) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(url, content, headers)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answer = json.loads(response.read())
        if not isinstance(answer, dict):
            raise ValueError(f"expected a JSON object, got {type(answer).__name__}")
        return answer

    def _next(self) -> str:
        """Return the next server's address, one that did not ask to be left alone if there is such, else wait."""
        with self._lock:
            for _ in self.addresses:
                address = next(self._turn)
                if self._not_before[address] <= time.monotonic():
                    return address
            address = min(self.addresses, key=self._not_before.__getitem__)
            wait = self._not_before[address] - time.monotonic()
        time.sleep(max(0.0, min(wait, _LONGEST_WAIT)))
        return address

    def _hold(self, address: str, seconds: float) -> None:
        with self._lock:
            self._not_before[address] = max(self._not_before[address], time.monotonic() + min(seconds, _LONGEST_WAIT))


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(2000).decode("utf-8", "replace")
        found = json.loads(text)
        found = found.get("error", found) if isinstance(found, dict) else found
        text = found.get("message", text) if isinstance(found, dict) else str(found)
    except (OSError, ValueError, http.client.HTTPException):
        text = error.reason if isinstance(error.reason, str) else ""
    return " ".join(text.split())[:300]
