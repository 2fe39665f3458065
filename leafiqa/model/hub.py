"""Fetch a student from the Hugging Face Hub: pinned to a commit, kept in the hub's own cache.

huggingface-hub locks its cache, resumes downloads and honours `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE` and
`HF_TOKEN`. It does not check what a file holds; `load_student` does, against the sha256 on the card.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from leafiqa.errors import WeightsError

PREFIX = "hf-hub:"
_REFERENCE = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$")
_REACH_SECONDS = 0.8
_ANSWER_SECONDS = 5


def fetch(reference: str) -> Path:
    """Download, or find in the cache, the student of a hub repository.

    Args:
        reference: `hf-hub:owner/repo` or `hf-hub:owner/repo@revision`; a revision is a branch, tag or commit.

    Returns:
        Path of the `.safetensors` file, its `.json` card beside it.

    Raises:
        WeightsError: malformed reference, no network, no such repository, or not a leafiqa student.
    """
    match = _REFERENCE.match(reference.removeprefix(PREFIX))
    if not match:
        raise WeightsError(f"weights must read hf-hub:owner/repo or hf-hub:owner/repo@revision, got {reference!r}")
    repo, revision = match["repo"], match["revision"] or "main"

    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = ["*.safetensors", "*.json"]
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    problem = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable(endpoint)

    def from_cache() -> Path | None:
        try:
            cached = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, local_files_only=True))
        except Exception:  # whatever huggingface-hub raises when it is not there
            return None
        return _student_in(cached, repo) if any(cached.glob("*.safetensors")) else None

    def unreachable(why: str) -> WeightsError:
        return WeightsError(
            f"cannot fetch {repo} (its .safetensors and .json at revision {revision}) from {endpoint}: {why}, and "
            f"it is not in the cache {constants.HF_HUB_CACHE}.\nWhere there is a network, run\n"
            f"  hf download {repo} --revision {revision} --local-dir {repo.split('/')[1]}\n"
            f"copy the folder here and pass it as weights."
        )

    if (problem or re.fullmatch(r"[0-9a-f]{40}", revision)) and (found := from_cache()):
        return found
    if problem:
        raise unreachable(problem)
    try:
        info = HfApi(endpoint=endpoint).model_info(repo, revision=revision, timeout=_ANSWER_SECONDS)
        files = [file.rfilename for file in info.siblings or []]
        stems = [name.removesuffix(".safetensors") for name in files if name.endswith(".safetensors")]
        if len(stems) != 1 or stems[0] + ".json" not in files:
            raise WeightsError(
                f"{repo}@{revision} is no leafiqa student: it must hold one NAME.safetensors and NAME.json, has {files}"
            )
        # The commit, not the branch: a push between the two downloads must not mix two versions.
        paths = [
            hf_hub_download(repo, stems[0] + suffix, revision=info.sha, endpoint=endpoint)
            for suffix in (".json", ".safetensors")
        ]
        _remember(repo, revision, str(info.sha))
    except WeightsError:
        raise
    except HfHubHTTPError as error:
        raise WeightsError(f"{endpoint} refused {repo}@{revision}: {error}") from error
    except Exception as error:
        # Its HTTP library's errors, bad JSON from a captive portal, names that it refuses, a full disk.
        if found := from_cache():
            return found
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise unreachable(f"{type(error).__name__}: {why}") from error
    return Path(paths[1])


def _remember(repo: str, revision: str, commit: str) -> None:
    """Note in the hub's cache which commit a branch or tag was at, so that it is found without a network, too."""
    from huggingface_hub import constants

    if revision == commit:
        return
    place = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "refs" / revision
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    temporary.write_text(commit)
    temporary.replace(place)


def _student_in(folder: Path, repo: str) -> Path:
    found = [path for path in folder.glob("*.safetensors") if path.with_suffix(".json").exists()]
    if len(found) != 1:
        raise WeightsError(
            f"the cached copy of {repo} in {folder} must hold one student, has {[p.name for p in found]}"
        )
    return found[0]


def _unreachable(endpoint: str) -> str | None:
    """Say within a second why the hub cannot be reached, None if it can (or a proxy is in between)."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if parts.scheme in getproxies() and not proxy_bypass(host):
        return None
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((host, port), timeout=_REACH_SECONDS).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(f"no connection to {host} ({error})")

    # In a thread, since a name look-up has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    return outcome[0] if outcome else f"no connection to {host} within {_REACH_SECONDS} s"
