"""What a teacher is: anything that judges images and compares two of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Answer:
    """A teacher's answer to one question.

    Attributes:
        judgment: fields of the evidence record: `levels` (log-probabilities by level word; one that is missing is
            unknown, not impossible), or `score`, `scale` and `confidence`; of a comparison `first`, the probability
            that the image shown first is the better; of a contact sheet `points`, such fields for each image, and
            `ranking`, the images' places from 0, best first, or None.
        asked: what was asked and of whom, recorded with the judgment: `teacher`, `prompt`, ...
        tokens: what it cost, `(in, out)`.
    """

    judgment: dict[str, Any]
    asked: dict[str, Any] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)


class Teacher(Protocol):
    """Judges images. Called from several threads at once."""

    name: str

    def judge(self, image: Image.Image) -> Answer:
        """Judge one image, RGB.

        Raises:
            TeacherError: there is no answer.
        """

    def compare(self, first: Image.Image, second: Image.Image) -> Answer:
        """Compare two images, shown in this order.

        Raises:
            TeacherError: there is no answer.
        """
