"""From the log-probabilities of an answer's first token to those of the words that were asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def word_of(token: str, words: Sequence[str]) -> str | None:
    """Return the word that a token begins or is, whatever its capitals, leading spaces or quotes.

    A word may be several tokens: "exc" can begin only "excellent". Single letters are not trusted unless they are all
    of the word.
    """
    text = token.strip(" \t\n\r\"'*_.:▁Ġ").lower()
    if text in words:
        return text
    if len(text) < 2:
        return None
    begun = [word for word in words if word.startswith(text)]
    return begun[0] if len(begun) == 1 else None


def word_logprobs(tokens: Iterable[tuple[str, float]], words: Sequence[str]) -> dict[str, float]:
    """Return log-probabilities of words, each the sum over the tokens that mean it; words without a token are left out.

    Args:
        tokens: `(token, log-probability)` of the most probable first tokens.
        words: what may be answered.
    """
    masses: dict[str, float] = {}
    for token, logprob in tokens:
        word = word_of(token, words)
        # Servers write -9999 or so for "not known".
        if word is not None and math.isfinite(logprob) and logprob > -1000:
            masses[word] = masses.get(word, 0.0) + math.exp(min(logprob, 0.0))
    # Rounding may add up to a little more than one.
    return {word: min(math.log(mass), 0.0) for word, mass in masses.items() if mass > 0}
