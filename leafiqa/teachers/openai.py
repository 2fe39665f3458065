"""A teacher behind an OpenAI-compatible server: vLLM, SGLang, LMDeploy, llama.cpp, hosted APIs.

Read are the log-probabilities of the answer's first token, so one token is generated and nothing is sampled. Servers
that give none are asked for a number with a stated confidence instead, and their answers are marked as such.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import math
import re
import threading
from collections.abc import Sequence
from typing import Any

from PIL import Image

from leafiqa.errors import TeacherError, TeacherRefused, TeacherUnusable
from leafiqa.evidence.records import LEVELS
from leafiqa.teachers.defects import read_defects
from leafiqa.teachers.http import Servers
from leafiqa.teachers.prompts import Prompt, read_prompts
from leafiqa.teachers.protocol import Answer
from leafiqa.teachers.sheets import compose, fit_within, largest_cell, read_sheet
from leafiqa.teachers.words import word_logprobs

# The most that vLLM and OpenAI give, and what more modest servers do.
_TOPS = (20, 5)
# Below this share of the probability on the words asked for, the model answered something else.
_LEAST_MASS = 0.1
_NUMBER_TOKENS = 160
_SHEET_TOKENS = 60


class ServerTeacher:
    """Asks servers that all serve one model.

    Args:
        servers: where to ask.
        model: the model's name there.
        prompts: by purpose; None means leafiqa's own.
        mode: "levels" reads log-probabilities, "number" asks for a number, "auto" begins with levels and goes over to
            numbers at the first answer without log-probabilities.
        max_side: images are made smaller to at most this side, in pixels; None leaves them as they are.
        defects: ask for defects in a question of their own where an answer is one word; where it is JSON they are part
            of it.
        temperature: of numbers; above 0 repeated questions get different answers.
        extra: fields added to each request, such as `chat_template_kwargs`; they go before leafiqa's own of the same
            name, such as `max_tokens`. Models that refuse `max_tokens` are asked with `max_completion_tokens`.
    """

    def __init__(
        self,
        servers: Servers,
        model: str,
        *,
        prompts: dict[str, Prompt] | None = None,
        mode: str = "auto",
        max_side: int | None = 1024,
        defects: bool = False,
        temperature: float = 0.0,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.name = model
        self._servers, self._prompts, self._max_side = servers, prompts or read_prompts(), max_side
        self._extra, self._temperature, self._defects = extra or {}, temperature, defects
        self._numbers = mode == "number"
        self._may_change = mode == "auto"
        self._restricted: dict[tuple[str, ...], dict[int, str]] = {}
        self._restrict = True
        self._top = _TOPS[0]
        self._worked = False
        self._completion_tokens = False
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Ask nothing any more."""
        self._servers.stop()

    def judge(self, image: Image.Image) -> Answer:
        """Judge one image."""
        if not self._numbers:
            answer = self._by_words("point-levels", [image], LEVELS)
            if answer is not None:
                logprobs, asked, tokens = answer
                levels: dict[str, Any] = {"levels": {k: round(v, 5) for k, v in logprobs.items()}}
                told = Answer(levels, asked, tokens)
                return self._with_defects(image, told) if self._defects else told
        found, asked, tokens = self._by_number("point-number", [image])
        score, confidence = _number(found, "score", 0, 100), _number(found, "confidence", 0, 1, optional=True)
        judgment: dict[str, Any] = {"score": score, "scale": [0, 100]}
        if confidence is not None:
            judgment["confidence"] = confidence
        if (defects := read_defects(found.get("defects"))) is not None:
            judgment["defects"] = defects
        return Answer(judgment, asked, tokens)

    def _with_defects(self, image: Image.Image, answer: Answer) -> Answer:
        """Return an answer with the defects, which are asked for by themselves; as it is where no answer names any."""
        try:
            found, _, tokens = self._by_number("defects-number", [image])
        except TeacherUnusable:
            raise
        except TeacherError as error:
            found, tokens = {}, error.tokens
        defects = read_defects(found.get("defects"))
        return Answer(
            answer.judgment if defects is None else {**answer.judgment, "defects": defects},
            answer.asked,
            (answer.tokens[0] + tokens[0], answer.tokens[1] + tokens[1]),
        )

    def compare(self, first: Image.Image, second: Image.Image) -> Answer:
        """Compare two images, shown in this order."""
        if not self._numbers:
            answer = self._by_words("pair-words", [first, second], ("first", "second"))
            if answer is not None:
                logprobs, asked, tokens = answer
                masses = {word: math.exp(value) for word, value in logprobs.items()}
                total = sum(masses.values())
                return Answer(
                    {"first": round(masses.get("first", 0.0) / total, 6), "mass": round(total, 6)}, asked, tokens
                )
        found, asked, tokens = self._by_number("pair-number", [first, second])
        return Answer({"first": _number(found, "first", 0, 1)}, asked, tokens)

    def sheet(self, images: Sequence[Image.Image]) -> Answer:
        """Judge several images in one view, by number and rank."""
        count, prompt = len(images), self._prompts["sheet-number"]
        prompt = Prompt(prompt.name, prompt.text.replace("{count}", str(count)))
        # The sheet as a whole stays within what may be sent.
        cell = max(max(image.size) for image in images)
        if self._max_side is not None:
            cell = min(cell, largest_cell(count, self._max_side))
        found, asked, tokens = self._ask_number(
            prompt, [compose(images, cell)], _SHEET_TOKENS * (1 + count), self._temperature
        )
        scores, confidences, ranking = read_sheet(found, count)
        points: list[dict[str, Any]] = [
            {"score": score, "scale": [0, 100], **({} if confidence is None else {"confidence": confidence})}
            for score, confidence in zip(scores, confidences)
        ]
        named = found.get("defects")
        for point, of in zip(points, named if isinstance(named, list) and len(named) == count else []):
            if (defects := read_defects(of)) is not None:
                point["defects"] = defects
        return Answer({"points": points, "ranking": ranking}, {**asked, "cell": cell}, tokens)

    def _by_words(
        self, purpose: str, images: list[Image.Image], words: tuple[str, ...]
    ) -> tuple[dict[str, float], dict[str, Any], tuple[int, int]] | None:
        """Return the words' log-probabilities, None where the server gives none and numbers are to be asked for."""
        prompt, ids = self._prompts[purpose], self._token_ids(words)
        body = self._body(prompt, images, {"max_tokens": 1, "logprobs": True, "top_logprobs": self._top})
        try:
            answer = self._post_for_words(body, ids)
        except TeacherRefused as error:
            if self._may_change and error.status in (400, 422) and "logprob" in str(error).lower():
                self._numbers = True
                return None
            raise _usable(error) from error
        tops = _first_tops(answer)
        if not tops:
            if self._worked:  # an odd answer, not another kind of server
                raise TeacherError("this answer came without log-probabilities", _tokens(answer))
            if not self._may_change:
                raise TeacherUnusable(f"{self.name}: the server gives no log-probabilities; use mode number")
            self._numbers = True
            return None
        self._worked = True
        tokens = [(str(top.get("token", "")), _logprob(top.get("logprob"))) for top in tops]
        if ids:
            # Tokens may come as "token_id:N".
            tokens = [(ids.get(_id_of(token), token), logprob) for token, logprob in tokens]
        logprobs = word_logprobs(tokens, words)
        mass = sum(map(math.exp, logprobs.values()))
        if mass < _LEAST_MASS:
            best = max(tokens, key=lambda token: token[1])[0] if tokens else ""
            raise TeacherError(
                f"only {mass:.3f} of the probability is on {', '.join(words)}: the answer begins with {best!r}",
                _tokens(answer),
            )
        return logprobs, self._asked(prompt, "logprobs", answer), _tokens(answer)

    def _post_for_words(self, body: dict[str, Any], ids: dict[int, str]) -> dict[str, Any]:
        """Return an answer with as many log-probabilities as the server can be brought to give."""
        restricted = {"logprob_token_ids": sorted(ids), "return_tokens_as_token_ids": True}
        try:
            return self._post({**body, **(restricted if ids and self._restrict else {})})
        except TeacherRefused as error:
            if error.status not in (400, 422):
                raise
            refused = error
        # What of it was refused, the server need not say; what is refused again was refused for another reason.
        tries = [(False, self._top)] if ids and self._restrict else []
        tries += [(False, top) for top in _TOPS if top < self._top]
        for restrict, top in tries:
            try:
                answer = self._post({**body, "top_logprobs": top})
            except TeacherRefused:
                continue
            self._restrict, self._top = restrict, top
            return answer
        raise refused

    def _by_number(
        self, purpose: str, images: list[Image.Image]
    ) -> tuple[dict[str, Any], dict[str, Any], tuple[int, int]]:
        return self._ask_number(self._prompts[purpose], images, _NUMBER_TOKENS, self._temperature)

    def _ask_number(
        self, prompt: Prompt, images: list[Image.Image], tokens: int, temperature: float
    ) -> tuple[dict[str, Any], dict[str, Any], tuple[int, int]]:
        """Return the JSON object that the answer holds, what was asked, and the tokens used."""
        body = self._body(prompt, images, {"max_tokens": tokens, "temperature": temperature})
        try:
            answer = self._post(body)
        except TeacherRefused as error:
            raise _usable(error) from error
        text = str((_choice(answer).get("message") or {}).get("content") or "")
        # From the first brace to the last: around it may be a greeting or a code fence.
        found = re.search(r"\{.*\}", text, re.DOTALL)
        try:
            parsed = json.loads(found.group()) if found else None
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise TeacherError(f"the answer holds no JSON object: {text[:120]!r}", _tokens(answer))
        return parsed, self._asked(prompt, "number", answer), _tokens(answer)

    def _body(self, prompt: Prompt, images: list[Image.Image], wanted: dict[str, Any]) -> dict[str, Any]:
        """Return a request; what the user adds goes before what leafiqa asks for."""
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(image, self._max_side)}} for image in images
        ]
        parts.append({"type": "text", "text": prompt.text})
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": parts}],
            "temperature": 0,
            **wanted,
            **self._extra,
        }
        if "max_completion_tokens" in self._extra and "max_tokens" not in self._extra:
            del body["max_tokens"]
        return body

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a request, its limit of tokens called as the model wants it."""
        if self._completion_tokens and "max_tokens" in body and "max_tokens" not in self._extra:
            body = {**body, "max_completion_tokens": body["max_tokens"]}
            del body["max_tokens"]
        try:
            return self._servers.post("/chat/completions", body)
        except TeacherRefused as error:
            told = "max_completion_tokens" in str(error) and error.status in (400, 422)
            if not told or self._completion_tokens or "max_tokens" in self._extra:
                raise
        self._completion_tokens = True
        return self._post(body)

    def _asked(self, prompt: Prompt, method: str, answer: dict[str, Any]) -> dict[str, Any]:
        # The model that answered, as the server names it: aliases move.
        asked = {"teacher": str(answer.get("model") or self.name), "prompt": prompt.name, "method": method}
        if self._max_side is not None:
            asked["max_side"] = self._max_side  # type: ignore[assignment]
        return asked

    def _token_ids(self, words: tuple[str, ...]) -> dict[int, str]:
        """Return ids of the tokens that begin the words, where the server tells (vLLM's /tokenize); else nothing."""
        with self._lock:
            if words not in self._restricted:
                self._restricted[words] = self._ask_token_ids(words)
            return self._restricted[words]

    def _ask_token_ids(self, words: tuple[str, ...]) -> dict[int, str]:
        root = self._servers.addresses[0].removesuffix("/v1")
        ids: dict[int, str] = {}
        try:
            for word in words:
                for written in (word, word.capitalize(), f" {word}", f" {word.capitalize()}"):
                    request = {"model": self.name, "prompt": written, "add_special_tokens": False}
                    tokens = self._servers.once(f"{root}/tokenize", request)["tokens"]
                    if ids.setdefault(int(tokens[0]), word) != word:
                        return {}  # two words begin with one token: restricting to it would tell nothing
        except (OSError, ValueError, KeyError, IndexError, TypeError, http.client.HTTPException):
            return {}
        return ids


def data_url(image: Image.Image, max_side: int | None) -> str:
    """Return an image as a `data:` URL: JPEG of a quality that hides nothing (95, full colour resolution)."""
    buffer = io.BytesIO()
    fit_within(image, max_side).save(buffer, "JPEG", quality=95, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _usable(error: TeacherRefused) -> TeacherError:
    """Tell a request that no image can mend (a wrong model or path) from one that was refused for its image."""
    return TeacherUnusable(str(error)) if error.status in (404, 405) else error


def _choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise TeacherError(f"the answer holds no choice: {str(answer)[:120]}")
    return choices[0]


def _first_tops(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the most probable first tokens that an answer tells, nothing where it tells none."""
    told = _choice(answer).get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    tops = first.get("top_logprobs") if isinstance(first, dict) else None
    return [top for top in tops if isinstance(top, dict)] if isinstance(tops, list) else []


def _logprob(value: Any) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)
    return float(value) if known else -math.inf


def _tokens(answer: dict[str, Any]) -> tuple[int, int]:
    usage = answer.get("usage")
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    into, out = (int(n) if isinstance(n, (int, float)) and n >= 0 else 0 for n in (counts or [0, 0]))
    return into, out


def _id_of(token: str) -> int:
    return int(token[9:]) if token.startswith("token_id:") and token[9:].isdigit() else -1


def _number(found: dict[str, Any], name: str, low: float, high: float, optional: bool = False) -> float | None:
    value = found.get(name)
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise TeacherError(f"{name} must be a number from {low:g} to {high:g}, the answer says {value!r}")
    return float(value)
