r"""Evidence as a vision-language instruction-tuning set, in the layout that LLaVA's and Qwen-VL's trainers read.

An open model that is tuned on judgments of one's own kind of pictures, by a stronger teacher or by people, can then
teach in its place. It is asked in the very words that `leafiqa label` uses, so that it answers them afterwards:

    {"id": "point-a.jpg", "image": "a.jpg", "conversations": [
        {"from": "human", "value": "<image>\nRate the technical ..."}, {"from": "gpt", "value": "good"}]}
    {"id": "pair-a.jpg-b.jpg", "image": ["a.jpg", "b.jpg"], "conversations": [
        {"from": "human", "value": "<image>\n<image>\nWhich of these ..."}, {"from": "gpt", "value": "second"}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leafiqa.evidence.files import Evidence
from leafiqa.evidence.records import LEVELS
from leafiqa.evidence.reliability import preferences, severities, targets
from leafiqa.teachers.prompts import Prompt

_WORDS = ("", "slight", "clear", "severe")
_NOTHING = "nothing"


def as_conversations(
    evidence: Evidence, prompts: Mapping[str, Prompt], least_reliability: float = 0.0
) -> list[dict[str, Any]]:
    """Return a conversation for each judgment: scores as words, comparisons in both orders, defects in words.

    Args:
        evidence: a teacher's judgments, or people's.
        prompts: by purpose; what is asked.
        least_reliability: judgments that are trusted less are left out, undecided comparisons among them.

    Returns:
        Conversations in the order of the images' names: of each its level and its defects, then the comparisons.
    """
    told: list[dict[str, Any]] = []
    known, wrong = targets(evidence), severities(evidence)
    for name in sorted(set(known) | set(wrong)):
        if name in known and known[name].reliability >= max(least_reliability, 1e-9):
            told.append(_talk(f"point-{name}", [name], prompts["point-levels"], level_of(known[name].score)))
        if name in wrong:
            told.append(_talk(f"defects-{name}", [name], prompts["defects-words"], in_words(wrong[name])))
    for pair in sorted(preferences(evidence), key=lambda one: (one.first, one.second)):
        if pair.reliability < max(least_reliability, 1e-9) or pair.preference == 0.5:
            continue
        better_first = pair.preference > 0.5
        # In both orders, lest the model learn to like a place.
        for names, first in (((pair.first, pair.second), better_first), ((pair.second, pair.first), not better_first)):
            answer = "first" if first else "second"
            told.append(_talk(f"pair-{names[0]}-{names[1]}", list(names), prompts["pair-words"], answer))
    return told


def level_of(score: float) -> str:
    """Return the level word that a score in [0, 1] is nearest to."""
    return LEVELS[min(len(LEVELS) - 1, int(score * (len(LEVELS) - 1) + 0.5))]


def in_words(defects: Mapping[str, float]) -> str:
    """Return severities in [0, 3] in words, the most severe first, such as "severe blur, slight noise"."""
    seen = [(min(3, int(severity + 0.5)), name) for name, severity in defects.items()]
    seen = sorted(((steps, name) for steps, name in seen if steps), key=lambda one: (-one[0], one[1]))
    return ", ".join(f"{_WORDS[steps]} {name}" for steps, name in seen) or _NOTHING


def _talk(identity: str, images: Sequence[str], prompt: Prompt, answer: str) -> dict[str, Any]:
    asked = "<image>\n" * len(images) + prompt.text
    return {
        "id": identity,
        "image": images[0] if len(images) == 1 else list(images),
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}],
    }
