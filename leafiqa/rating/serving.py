"""The page that people rate on, served from this machine alone.

Who is let in: requests that carry the token of this session in their path, for a host name of this machine, and, where
a browser says which page they come from, from this page. A picture is asked for by a random key, never by a path; only
files that were found when the session began are sent, and only if they still are where they were, and are pictures.
"""

from __future__ import annotations

import asyncio
import hmac
import io
import json
import mimetypes
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from leafiqa.errors import ImageError, InputError, OutputError
from leafiqa.rating.questions import Question
from leafiqa.rating.session import SKIPS, Session, check_name

_PAGE = Path(__file__).parent / "page"
# What browsers show as it is, by the first bytes of the file.
_SHOWN = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF8", "image/gif"))
# An answer is small; nothing else is sent here.
_MOST_BYTES = 4096
_LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "::1"}
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class RatingServer:
    """Serves a session.

    Args:
        session: what is asked and answered.
        hosts: host names that the page is reached by; None means this machine's own.
        on_finish: called when a rater says that the session is over.
    """

    def __init__(
        self, session: Session, *, hosts: set[str] | None = None, on_finish: Callable[[], None] = lambda: None
    ) -> None:
        self.session, self._on_finish = session, on_finish
        named = {name.lower() for name in hosts or ()}
        self._hosts = _LOOPBACK | named | {f"[{name}]" for name in named if ":" in name}
        self.token = secrets.token_urlsafe(18)
        self._keys = {secrets.token_urlsafe(9): number for number in range(len(session.paths))}
        self._key_of = {number: key for key, number in self._keys.items()}
        # Where each file really is; a link that is put in its place later leads nowhere.
        self._real = [os.path.realpath(path) for path in session.paths]
        self._knowing = asyncio.Lock()

    @property
    def app(self) -> Starlette:
        """The application; it keeps no state but the session's."""
        routes = [
            Route("/{token}/", self._guarded(self._page), methods=["GET"]),
            Route("/{token}/rate.js", self._guarded(self._static("rate.js", "text/javascript")), methods=["GET"]),
            Route("/{token}/rate.css", self._guarded(self._static("rate.css", "text/css")), methods=["GET"]),
            Route("/{token}/picture/{key}", self._guarded(self._picture), methods=["GET"]),
            Route("/{token}/known", self._guarded(self._known), methods=["GET"]),
            *(
                Route(f"/{{token}}/{name}", self._guarded(self._posted(of)), methods=["POST"])
                for name, of in (
                    ("state", self._state),
                    ("ahead", self._ahead),
                    ("answer", self._answer),
                    ("skip", self._skip),
                    ("undo", self._undo),
                    ("finish", self._finish),
                )
            ),
        ]
        made = Starlette(routes=routes)
        # A wrong address is not found; where it might lead is nobody's business.
        made.router.redirect_slashes = False
        return made

    # Who is let in.

    def _guarded(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            refused = self._refusal(request)
            response = PlainTextResponse("not found", 404) if refused else await handler(request)
            response.headers.update(_HEADERS)
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return guarded

    def _refusal(self, request: Request) -> bool:
        """Tell whether a request is not from this session's page. All refusals look alike."""
        token = request.path_params.get("token", "")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return True
        host = request.headers.get("host", "")
        name = (host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host).lower()
        # A name of somebody else's that leads to this machine (DNS rebinding) is not ours.
        if name not in self._hosts:
            return True
        origin = request.headers.get("origin")
        if origin is not None and origin != f"{request.url.scheme}://{host}":
            return True
        return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")

    def _posted(self, handler: Callable[[dict[str, Any]], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
        """Return what reads a JSON object, and answers with JSON; wrong ones get their reason."""

        async def posted(request: Request) -> Response:
            if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return JSONResponse({"error": "the body must be application/json"}, 415)
            body = b""
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MOST_BYTES:
                    return JSONResponse({"error": f"at most {_MOST_BYTES} bytes"}, 413)
            try:
                content = json.loads(body)
            except (ValueError, RecursionError):
                return JSONResponse({"error": "no JSON"}, 400)
            if not isinstance(content, dict):
                return JSONResponse({"error": "the body must be an object"}, 400)
            try:
                return JSONResponse(await handler(content))
            except InputError as error:
                return JSONResponse({"error": str(error)}, 400)
            except OutputError as error:
                return JSONResponse({"error": str(error)}, 507)

        return posted

    # What is sent.

    def _static(self, name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        async def static(_: Request) -> Response:
            return Response((_PAGE / name).read_bytes(), media_type=kind)

        return static

    async def _page(self, _: Request) -> Response:
        return HTMLResponse((_PAGE / "rate.html").read_text(encoding="utf-8"))

    async def _picture(self, request: Request) -> Response:
        number = self._keys.get(request.path_params.get("key", ""))
        if number is None:
            return PlainTextResponse("not found", 404)
        try:
            data, kind = await run_in_threadpool(self._load, number)
        except (OSError, ImageError) as error:
            self.session.unreadable[number] = str(error)
            return PlainTextResponse("this picture cannot be read any more", 410)
        # Loaded ahead, and looked at again after an undo: the browser may keep it for this session.
        return Response(data, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    def _load(self, number: int) -> tuple[bytes, str]:
        """Return a picture's bytes as browsers show them: as they are where they can, else as PNG."""
        path = self.session.paths[number]
        if os.path.realpath(path) != self._real[number]:
            raise OSError("the file was replaced by a link")
        data = path.read_bytes()
        for head, kind in _SHOWN:
            if data.startswith(head):
                return data, kind
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return data, "image/webp"
        from PIL import Image

        from leafiqa.images.decoding import decode

        pixels = decode(data).pixels
        if pixels.dtype.kind == "f":
            pixels = (pixels.clip(0, 1) * 255 + 0.5).astype("uint8")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), mimetypes.types_map[".png"]

    async def _known(self, _: Request) -> Response:
        if self._knowing.locked():  # one at a time is enough; who comes meanwhile asks again later
            return JSONResponse(None)
        async with self._knowing:
            found = await run_in_threadpool(self.session.known)
        return JSONResponse(found.to_dict())

    # What is asked and answered.

    async def _state(self, content: dict[str, Any]) -> Any:
        rater = check_name(content.get("rater"))
        number, question = await run_in_threadpool(self.session.state, rater)
        return await run_in_threadpool(self._told, rater, number, question)

    async def _ahead(self, content: dict[str, Any]) -> Any:
        question = await run_in_threadpool(self.session.ahead, check_name(content.get("rater")))
        return {"pictures": [] if question is None else [self._key_of[image] for image in question.images]}

    async def _answer(self, content: dict[str, Any]) -> Any:
        seconds = content.get("seconds")
        took = float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < 1e6 else float("nan")
        rater, number, value = check_name(content.get("rater")), _number(content), str(content.get("value"))
        await run_in_threadpool(self.session.answer, rater, number, value, took)
        return await self._state(content)

    async def _skip(self, content: dict[str, Any]) -> Any:
        rater, number, reason = check_name(content.get("rater")), _number(content), str(content.get("reason"))
        await run_in_threadpool(self.session.skip, rater, number, reason)
        return await self._state(content)

    async def _undo(self, content: dict[str, Any]) -> Any:
        await run_in_threadpool(self.session.undo, check_name(content.get("rater")), _number(content))
        return await self._state(content)

    async def _finish(self, content: dict[str, Any]) -> Any:
        self._on_finish()
        return {"finished": True}

    def _told(self, rater: str, number: int, question: Question | None) -> dict[str, Any]:
        done, total = self.session.progress(rater)
        found: dict[str, Any] = {"rater": rater, "number": number, "done": done, "total": total, "skips": list(SKIPS)}
        if question is None:
            return {**found, "kind": "none", "pictures": []}
        # A repeat is hidden: only warm-up is told.
        return {
            **found,
            "kind": question.kind,
            "warm_up": question.phase == "warm-up",
            "pictures": [self._key_of[image] for image in question.images],
        }


def _number(content: dict[str, Any]) -> int:
    """Return the number of the question that is answered.

    Raises:
        InputError: it is none.
    """
    number = content.get("number")
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"number must be that of the question, got {number!r:.40}")
    return number
