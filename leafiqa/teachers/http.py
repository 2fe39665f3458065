"""POST JSON to servers that fail, stall and push back, until there is an answer or reason to give up."""

from __future__ import annotations

import email.utils
import http.client
import ipaddress
import itertools
import json
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from leafiqa.errors import TeacherError, TeacherRefused, TeacherStopped, TeacherUnusable

_LONGEST_BACKOFF = 60.0
# A server that asks to be left alone is waited for so long in all, for one question.
_LONGEST_HELD = 600.0
# ... and so often, before its putting off counts as a failed attempt.
_MOST_PUT_OFF = 12
# What asking again may cure.
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_CHUNK = 1 << 16


class Servers:
    """Servers that answer alike, asked in turn.

    Requests go to these addresses only: redirects are not followed, and of proxies only those for https are used,
    which see no content.

    Args:
        addresses: such as `http://127.0.0.1:8000/v1`.
        key: sent as a bearer token; written nowhere, and cut out of what servers say.
        timeout: seconds to wait for an answer.
        attempts: how often a question is asked before it is given up. That a server asks to come back later is no
            attempt the first twelve times, and one each further time.
        concurrency: requests under way at once; a question that waits to be asked again is not under way.
        first_wait: seconds before the second attempt; doubled for each further one, with jitter. Also the least that
            is waited where a server asks to come back sooner.

    Raises:
        TeacherUnusable: an address is none, or the key cannot be sent.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        key: str | None = None,
        timeout: float = 120.0,
        attempts: int = 8,
        concurrency: int = 8,
        first_wait: float = 1.0,
    ) -> None:
        self.addresses = [_checked(address) for address in addresses]
        self._key = (key or "").strip()
        if any(not "!" <= character <= "~" for character in self._key):
            raise TeacherUnusable("the API key holds a space, a line break or a character that HTTP cannot send")
        self._timeout, self._attempts, self._first_wait = timeout, attempts, first_wait
        self._turn = itertools.cycle(self.addresses)
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(concurrency)
        self._not_before = dict.fromkeys(self.addresses, 0.0)
        self._stop = threading.Event()
        self._reached = False
        self.retries = 0
        self._random = random.Random()  # the program's own random state is left alone
        secure = {name: proxy for name, proxy in urllib.request.getproxies().items() if name == "https"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(secure), _NoRedirect)

    def stop(self) -> None:
        """Ask nothing any more: questions that wait to be asked again end at once, those under way may finish."""
        self._stop.set()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the JSON answer to a request.

        Raises:
            TeacherRefused: a server refuses the request as such (400, 404, 422, ...).
            TeacherStopped: `stop` was called.
            TeacherUnusable: the key is refused, no server was ever reached, or all ask to be left alone for long.
            TeacherError: no answer after all attempts.
        """
        content = json.dumps(body).encode()
        why, attempt, held, put_off = "", 0, 0.0, 0
        while True:
            address, waited = self._next()
            held += waited
            try:
                with self._slots:
                    if self._stop.is_set():
                        raise TeacherStopped("stopped before it was asked")
                    answer = self._once(address + path, content, self._timeout)
                self._reached = True
                return answer
            except urllib.error.HTTPError as error:
                self._reached = True
                why = f"{address}: HTTP {error.code}: {self._reason(error)}"
                if error.code in (401, 403):
                    raise TeacherUnusable(
                        f"{why}; name the environment variable that holds the API key: key=os.environ[...] in Python, "
                        "--key-variable OPENAI_API_KEY on the command line"
                    ) from error
                if 300 <= error.code < 400:
                    raise TeacherUnusable(f"{why}; redirects are not followed: give the address itself") from error
                if error.code not in _PASSING:
                    hint = "; should the address end in /v1?" if error.code == 404 and "/v1" not in address else ""
                    raise TeacherRefused(error.code, why + hint) from error
                asked = _retry_after(error.headers.get("Retry-After"))
                lost = False
            except (OSError, http.client.HTTPException, ValueError) as error:
                # No connection, reset, timeout, half an answer, no JSON.
                why = f"{address}: {type(error).__name__}: {self._without_key(str(error))}"
                lost, asked = isinstance(error, OSError), None
            # Full jitter: those that were refused together must not come back together.
            if asked is not None and held < _LONGEST_HELD and put_off < _MOST_PUT_OFF:
                put_off += 1
                self._count_retry()
                self._hold(address, asked + self._random.uniform(0, 0.1 * asked))
                # All leave the server alone for as long as it says. Where it says "at once", this question is not to
                # hammer it either.
                least = self._first_wait * min(2 ** (put_off - 1), 8) * self._random.uniform(0.5, 1.0)
                if asked < least and self._stop.wait(least - asked):
                    raise TeacherStopped(f"stopped before it was asked again; the last: {why}")
                continue
            attempt += 1
            if attempt >= self._attempts:
                break
            self._count_retry()
            backoff = min(_LONGEST_BACKOFF, self._first_wait * 2 ** (attempt - 1)) * self._random.uniform(0.5, 1.0)
            if lost and len(self.addresses) > 1:
                self._hold(address, backoff)  # the others need not find out as well
            elif self._stop.wait(backoff):
                raise TeacherStopped(f"stopped before it was asked again; the last: {why}")
        message = f"no answer after {self._attempts} attempts; the last: {why}"
        if not self._reached:
            raise TeacherUnusable(f"{message}. Is the address right, and the server running?")
        raise TeacherError(message)

    def once(self, url: str, body: dict[str, Any], timeout: float = 10.0) -> dict[str, Any]:
        """Return the JSON answer to a request that is made once.

        Raises:
            OSError, ValueError, http.client.HTTPException: there is none.
        """
        return self._once(url, json.dumps(body).encode(), timeout)

    def _once(self, url: str, content: bytes, timeout: float) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(url, content, headers)
        until = time.monotonic() + timeout
        parts: list[bytes] = []
        with self._opener.open(request, timeout=timeout) as response:
            # Piece by piece: the timeout is of a single read, and an answer that drips must not take for ever.
            left = response.length
            while left != 0 and (part := response.read1(_CHUNK if left is None else min(_CHUNK, left))):
                parts.append(part)
                left = None if left is None else left - len(part)
                if time.monotonic() > until:
                    raise TimeoutError("the answer did not end in time")
            if left:
                raise http.client.IncompleteRead(b"".join(parts), left)
        answer = json.loads(b"".join(parts))
        if not isinstance(answer, dict):
            raise ValueError(f"expected a JSON object, got {type(answer).__name__}")
        return answer

    def _next(self) -> tuple[str, float]:
        """Return an address that did not ask to be left alone, and the seconds that it was waited for."""
        waited = 0.0
        while True:
            with self._lock:
                for _ in self.addresses:
                    address = next(self._turn)
                    if self._not_before[address] <= time.monotonic():
                        return address, waited
                address = min(self.addresses, key=self._not_before.__getitem__)
                wait = self._not_before[address] - time.monotonic()
            if wait > _LONGEST_HELD:
                raise TeacherUnusable(
                    f"{address} asks to be left alone for {wait:.0f} s; the same command goes on from here later"
                )
            if self._stop.wait(max(0.0, wait)):
                raise TeacherStopped("stopped while its server asked to be left alone")
            waited += max(0.0, wait)

    def _hold(self, address: str, seconds: float) -> None:
        with self._lock:
            self._not_before[address] = max(self._not_before[address], time.monotonic() + seconds)

    def _count_retry(self) -> None:
        with self._lock:
            self.retries += 1

    def _reason(self, error: urllib.error.HTTPError) -> str:
        try:
            text = error.read(2000).decode("utf-8", "replace")
            found = json.loads(text)
            found = found.get("error", found) if isinstance(found, dict) else found
            text = str((found.get("message") or text) if isinstance(found, dict) else found)
        except (OSError, ValueError, http.client.HTTPException):
            text = error.reason if isinstance(error.reason, str) else ""
        return " ".join(self._without_key(text).split())[:300]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leave redirects to the caller: images and key go to the address that was given."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def insecure(addresses: Sequence[str]) -> list[str]:
    """Return the addresses to which images and key would travel unencrypted over a network: http, beyond loopback."""
    found = []
    for address in addresses:
        parts = urllib.parse.urlsplit(address)
        host = parts.hostname or ""
        if parts.scheme == "http" and not _is_loopback(host):
            found.append(address)
    return found


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TeacherUnusable(f"a server must be an address such as http://127.0.0.1:8000/v1, got {address!r}")
    return address.rstrip("/")


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
