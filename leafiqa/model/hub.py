"""Fetch a student from the Hugging Face Hub: pinned to a commit, kept in the hub's own cache.

huggingface-hub locks its cache, resumes downloads and honours `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`,
`HF_HUB_ETAG_TIMEOUT`, `HF_TOKEN` and the usual proxy variables. It does not check what a file holds; `load_student`
does, against the sha256 on the card.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any

from leafiqa.errors import WeightsError

PREFIX = "hf-hub:"
_REFERENCE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+(/[\w.-]+)*))?")


def parse_reference(reference: str) -> tuple[str, str]:
    """Return repository and revision of `hf-hub:owner/repo[@revision]`; the revision is `main` if none is given.

    Raises:
        WeightsError: it does not read so, or the revision is no branch, tag or commit that there can be.
    """
    match = _REFERENCE.fullmatch(reference.removeprefix(PREFIX))
    revision = (match["revision"] or "main") if match else ""
    # As a part of a path `..` would lead out of the hub's cache; git allows no such name either.
    if not match or ".." in revision or any(part.startswith(".") for part in revision.split("/")):
        raise WeightsError(f"weights must read hf-hub:owner/repo or hf-hub:owner/repo@revision, got {reference!r}")
    return match["repo"], revision


def fetch(reference: str) -> Path:
    """Download, or find in the cache, the student of a hub repository.

    A commit that is in the cache is not asked for again. Where the hub cannot be reached or fails, the cached copy is
    used, with a warning.

    Args:
        reference: `hf-hub:owner/repo` or `hf-hub:owner/repo@revision`; a revision is a branch, tag or commit.

    Returns:
        Path of the `.safetensors` file, its `.json` card beside it.

    Raises:
        WeightsError: malformed reference, no network, no such repository, or not a leafiqa student.
    """
    repo, revision = parse_reference(reference)

    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    if re.fullmatch(r"[0-9a-f]{40}", revision) and (found := _cached(repo, revision)):
        return found
    try:
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        name = _student_name(repo, revision, [file.rfilename for file in info.siblings or []])
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=[f"{name}.safetensors", f"{name}.json"], endpoint=endpoint
        )
        return _student_in(Path(folder), repo)
    except WeightsError:
        raise
    except Exception as error:
        # Its HTTP library's errors, bad JSON from a captive portal, names that it refuses, a full disk.
        why = f"{type(error).__name__}: {(str(error) or 'no reason given').strip().splitlines()[0]}"
        if found := _cached(repo, revision):
            warnings.warn(f"{endpoint} did not give {repo}@{revision} ({why}): using the cached copy", stacklevel=2)
            return found
        if isinstance(error, HfHubHTTPError) and _status(error) in (401, 403, 404):
            raise WeightsError(f"{endpoint} refused {repo}@{revision}: {why}") from error
        raise WeightsError(
            f"cannot fetch {repo} (its .safetensors and .json at revision {revision}) from {endpoint}: {why}, and "
            f"it is not in the cache {constants.HF_HUB_CACHE}.\nWhere there is a network, run\n"
            f"  hf download {repo} --revision {revision} --local-dir {repo.split('/')[1]}\n"
            f"copy the folder here and pass it as weights."
        ) from error


def _status(error: Any) -> int:
    return getattr(getattr(error, "response", None), "status_code", 0)


def _cached(repo: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json"]
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
    except Exception:  # whatever huggingface-hub raises when it is not there
        folder = None
    if folder is None or not any(folder.glob("*.safetensors")):
        folder = _snapshot(repo, revision)
    return _student_in(folder, repo) if folder is not None and any(folder.glob("*.safetensors")) else None


def _snapshot(repo: str, revision: str) -> Path | None:
    """Return a cached commit that huggingface-hub takes for incomplete, as other files of the repository lack."""
    from huggingface_hub import constants

    place = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}"
    reference = place / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    folder = place / "snapshots" / commit
    return folder if re.fullmatch(r"[0-9a-f]{40}", commit) and folder.is_dir() else None


def _student_name(repo: str, revision: str, files: list[str]) -> str:
    stems = [name.removesuffix(".safetensors") for name in files if name.endswith(".safetensors")]
    if len(stems) != 1 or stems[0] + ".json" not in files:
        raise WeightsError(
            f"{repo}@{revision} is no leafiqa student: it must hold one NAME.safetensors and NAME.json, has {files}"
        )
    return stems[0]


def _student_in(folder: Path, repo: str) -> Path:
    found = [path for path in folder.glob("*.safetensors") if path.with_suffix(".json").exists()]
    if len(found) != 1:
        raise WeightsError(
            f"the cached copy of {repo} in {folder} must hold one student, has {[p.name for p in found]}"
        )
    return found[0]
