"""Put a student on the Hugging Face Hub, where `hf-hub:owner/repo` finds it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from leafiqa.errors import WeightsError
from leafiqa.files import sha256_of
from leafiqa.model.card import Card, read_card
from leafiqa.model.checkpoint import find_pair

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def readme(card: Card, repo: str) -> str:
    """Return the page that the hub shows of a student, Markdown made from its card."""
    licence = str(card.licences.get("weights", "other")).lower()
    lines = [
        "---",
        f"license: {licence if re.fullmatch(r'[a-z0-9.-]+', licence) else 'other'}",
        "library_name: leafiqa",
        "tags:\n- image-quality-assessment\n- no-reference",
        "---",
        f"# {card.name}\n\n{card.description}\n",
        f'```python\nimport leafiqa\n\nmetric = leafiqa.create_metric(weights="hf-hub:{repo}")\n'
        'scores = metric(["a.jpg", "b.png"])\n```\n',
        f"Scores from {card.score_range[0]:g} to {card.score_range[1]:g}, higher is better; "
        f"{card.score.get('unit', 'the unit is not stated')}.\n",
    ]
    if card.accuracy:
        lines += ["| set | n | SRCC | PLCC |", "|---|---|---|---|"]
        lines += [
            f"| {row.get('dataset')} {row.get('split', '')} | {row.get('n')} | {row.get('srcc')} | {row.get('plcc')} |"
            for row in card.accuracy
        ]
        lines.append("")
    if card.limitations:
        lines += ["Limitations:\n", *(f"* {line}" for line in card.limitations), ""]
    lines.append(
        f"All that is known of it stands in the card, the `.json` file. sha256 of the weights: `{card.sha256}`.\n"
    )
    return "\n".join(lines)


def upload(student: Path, repo: str, *, private: bool = False) -> str:
    """Upload a student: its weights, its card and a page made from the card, in one commit.

    Args:
        student: the `.safetensors` file, the card or their folder.
        repo: `owner/repo`; made if it does not exist. It may hold one student, as `hf-hub:owner/repo` means that one.
        private: make a new repository private.

    Returns:
        `hf-hub:owner/repo@commit`, which fetches exactly what was uploaded.

    Raises:
        WeightsError: the student is damaged or a difference, the repository holds another one, or the hub refuses.
    """
    if not _REPOSITORY.fullmatch(repo):
        raise WeightsError(f"the repository must read owner/repo, got {repo!r}")
    weights, card_file = find_pair(student)
    card = read_card(card_file)
    if sha256_of(weights) != card.sha256:
        raise WeightsError(f"{weights} is not the file that its card describes: its sha256 differs from {card.sha256}")
    if card.base:
        raise WeightsError(
            f"{weights} holds only what differs from {card.base['name']}; who fetches it may have another one. Save a "
            "calibration of yours whole, without difference, and upload that; what comes with leafiqa needs no upload"
        )

    from huggingface_hub import CommitOperationAdd, HfApi, constants

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    api = HfApi(endpoint=endpoint)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        there = [file.rfilename for file in api.model_info(repo, revision="main").siblings or []]
        others = [name for name in there if name.endswith(".safetensors") and name != weights.name]
        if others:
            raise WeightsError(f"{repo} holds another student already, {others[0]}; choose a repository of its own")
        commit = api.create_commit(
            repo,
            operations=[
                CommitOperationAdd(weights.name, weights),
                CommitOperationAdd(card_file.name, card_file),
                CommitOperationAdd("README.md", readme(card, repo).encode()),
            ],
            commit_message=f"{card.name} {card.short_hash}",
        )
    except WeightsError:
        raise
    except Exception as error:  # its HTTP library's errors, the hub's, a missing token
        why = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise WeightsError(
            f"cannot upload to {repo} at {endpoint}: {why}. A token with the right to write is needed: "
            "run `hf auth login` or set HF_TOKEN"
        ) from error
    return f"hf-hub:{repo}@{commit.oid}"
