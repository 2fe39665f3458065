"""The evidence file of one teacher: what it was asked already, and writing down what it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from leafiqa.errors import EvidenceError
from leafiqa.evidence.files import Evidence, append_evidence, read_evidence
from leafiqa.teachers.protocol import Answer


class Task(NamedTuple):
    """One question.

    Attributes:
        kind: "point", "pair" or "sheet".
        images: names: one, two in the order shown, or those on a contact sheet.
    """

    kind: str
    images: tuple[str, ...]


class Journal:
    """The evidence file of one teacher: what it has answered already.

    Args:
        path: the file; need not exist yet.
        teacher: the teacher's name; each line carries it as `asked`.
        prompts: names of the prompts that are asked now; None does not look at them.

    Raises:
        EvidenceError: the file holds another teacher's evidence or was asked for with other prompts.
    """

    def __init__(self, path: Path, teacher: str, prompts: Collection[str] | None = None) -> None:
        self.path, self.teacher = path, teacher
        self.done: dict[Task, int] = {}
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                record = json.loads(line)
                kind = record["kind"]
                task = Task(kind, (record["image"],) if kind == "point" else tuple(record["images"]))
            except (ValueError, KeyError, TypeError):
                continue  # a torn line: its question is asked again
            if record.get("asked") != teacher:
                raise EvidenceError(
                    f"{path} holds evidence of {record.get('asked') or 'an unnamed teacher'}, not of {teacher}: "
                    "write each teacher's to a file of its own"
                )
            if prompts is not None and record.get("prompt") not in prompts:
                raise EvidenceError(
                    f"{path} was asked for with prompt {record.get('prompt')!r}, now it would be one of "
                    f"{sorted(prompts)}: write the answers to each to a file of their own"
                )
            self.done[task] = self.done.get(task, 0) + 1

    def write(self, task: Task, answer: Answer, digests: Sequence[str]) -> None:
        """Add an answer and wait until it is on the disk.

        Raises:
            ValueError: it is not of the evidence format, or a name cannot be written as UTF-8.
        """
        records: list[dict[str, Any]] = []
        if task.kind == "point":
            records.append({"kind": "point", "image": task.images[0], "sha256": digests[0], **answer.judgment})
        elif task.kind == "pair":
            records.append({"kind": "pair", "images": list(task.images), "sha256": list(digests), **answer.judgment})
        else:
            # Named after what is on it, in its order: the same in any run.
            view = hashlib.sha256("\0".join((*task.images, *digests)).encode()).hexdigest()[:12]
            for name, digest, point in zip(task.images, digests, answer.judgment["points"]):
                records.append({"kind": "point", "image": name, "sha256": digest, **point, "view": view})
            if (ranking := answer.judgment["ranking"]) is not None and len(ranking) > 1:
                records.append({"kind": "ranking", "images": [task.images[i] for i in ranking], "view": view})
        append_evidence(self.path, [{**record, **answer.asked, "asked": self.teacher} for record in records])
        for done in [Task("point", (name,)) for name in task.images] if task.kind == "sheet" else [task]:
            self.done[done] = self.done.get(done, 0) + 1

    def evidence(self) -> Evidence:
        """Return all that was answered."""
        return read_evidence([self.path])
