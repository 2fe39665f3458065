"""A teacher on this machine: any image-text-to-text chat model of transformers, by its hub name or folder.

The next token's probabilities are read at the words asked for; nothing is generated and nothing sampled.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from leafiqa.errors import TeacherUnusable
from leafiqa.evidence.records import LEVELS
from leafiqa.teachers.batches import Batches
from leafiqa.teachers.prompts import Prompt, read_prompts
from leafiqa.teachers.protocol import Answer
from leafiqa.teachers.sheets import fit_within

if TYPE_CHECKING:
    import torch

ORDER_WORDS = ("first", "second")


class LocalTeacher:
    """A vision-language model of transformers.

    Args:
        model: hub name (`owner/repo`) or folder.
        revision: branch, tag or commit on the hub; what it was is recorded with each judgment.
        device_map: where the model's parts go, as transformers takes it: "auto", "cpu", "cuda:0", ...
        dtype: such as "auto", "bfloat16", "float32".
        batch: images that go through the model together.
        max_side: images are made smaller to at most this side, in pixels; None leaves them as they are.
        prompts: by purpose; None means leafiqa's own.

    Raises:
        TeacherUnusable: transformers is missing, the model cannot be loaded, or its tokenizer does not tell the level
            words apart by their first tokens.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        device_map: str = "auto",
        dtype: str = "auto",
        batch: int = 4,
        max_side: int | None = 1024,
        prompts: dict[str, Prompt] | None = None,
    ) -> None:
        try:
            from transformers import AutoModelForImageTextToText, AutoProcessor
        except ImportError as error:
            raise TeacherUnusable(
                f"a local teacher needs transformers: pip install transformers accelerate ({error})"
            ) from error
        try:
            self._processor: Any = AutoProcessor.from_pretrained(model, revision=revision)
            self._model: Any = AutoModelForImageTextToText.from_pretrained(
                model, revision=revision, dtype=dtype, device_map=None if device_map == "cpu" else device_map
            ).eval()
            # Logits of the whole prompt over a whole vocabulary are gigabytes; most models can leave them out.
            takes = inspect.signature(self._model.forward).parameters
            self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        except Exception as error:  # transformers passes on whatever the hub, its parsers and torch raise
            raise TeacherUnusable(f"cannot load {model} as a teacher: {str(error).splitlines()[0]}") from error
        # Of a folder its name, not its place: evidence travels.
        self.name = Path(model).resolve().name if Path(model).is_dir() else model
        self.revision = getattr(self._model.config, "_commit_hash", None) or revision
        self._max_side, self._prompts = max_side, prompts or read_prompts()
        # Only with padding on the left does the last position belong to the question, not to the padding.
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token_id is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token
        self._ids = {words: first_tokens(self._processor.tokenizer, words) for words in (LEVELS, ORDER_WORDS)}
        self._batches: Batches[tuple[Image.Image, ...], dict[str, float]] = Batches(self._answer, len, batch)

    def judge(self, image: Image.Image) -> Answer:
        """Judge one image."""
        logprobs = self._batches.ask((fit_within(image, self._max_side),))
        return Answer(
            {"levels": {word: round(value, 5) for word, value in logprobs.items()}}, self._asked("point-levels")
        )

    def compare(self, first: Image.Image, second: Image.Image) -> Answer:
        """Compare two images, shown in this order."""
        logprobs = self._batches.ask((fit_within(first, self._max_side), fit_within(second, self._max_side)))
        masses = [math.exp(logprobs[word]) for word in ORDER_WORDS]
        judgment = {"first": round(masses[0] / sum(masses), 6), "mass": round(sum(masses), 6)}
        return Answer(judgment, self._asked("pair-words"))

    def _asked(self, purpose: str) -> dict[str, Any]:
        asked = {"teacher": self.name, "prompt": self._prompts[purpose].name, "method": "logits"}
        if self.revision:
            asked["revision"] = self.revision
        if self._max_side is not None:
            asked["max_side"] = self._max_side  # type: ignore[assignment]
        return asked

    def _answer(self, questions: Sequence[tuple[Image.Image, ...]]) -> list[dict[str, float]]:
        import torch

        purpose, words = ("point-levels", LEVELS) if len(questions[0]) == 1 else ("pair-words", ORDER_WORDS)
        content = [*({"type": "image"} for _ in questions[0]), {"type": "text", "text": self._prompts[purpose].text}]
        text = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        inputs = self._processor(
            text=[text] * len(questions),
            images=[list(pictures) for pictures in questions],
            padding=True,
            return_tensors="pt",
        ).to(self._model.device)
        for name, value in inputs.items():
            if torch.is_floating_point(value):
                inputs[name] = value.to(self._model.dtype)
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**inputs, use_cache=False, **self._last_only).logits[:, -1]
        logprobs = logits.float().log_softmax(dim=-1).cpu()
        return [
            {word: float(row[list(ids)].logsumexp(0)) for word, ids in zip(words, self._ids[words])} for row in logprobs
        ]


def first_tokens(tokenizer: Any, words: Sequence[str]) -> list[set[int]]:
    """Return for each word the ids of the tokens that an answer may begin it with.

    Raises:
        TeacherUnusable: two words begin with one token, so their probabilities cannot be told apart.
    """
    found: list[set[int]] = []
    for word in words:
        written = (word, word.capitalize(), f" {word}", f" {word.capitalize()}")
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in written]
        found.append({tokens[0] for tokens in ids if tokens})
    shared = [(a, b) for i, a in enumerate(words) for j, b in enumerate(words) if i < j and found[i] & found[j]]
    # A token such as a bare space begins them all; what is left must still tell each from the others.
    if shared:
        common = {token for ids in found for token in ids if sum(token in other for other in found) > 1}
        found = [ids - common for ids in found]
        if not all(found):
            raise TeacherUnusable(f"this model's tokenizer begins {shared[0][0]!r} and {shared[0][1]!r} alike")
    return found
