"""A Lightning callback that generates pictures at each validation, scores them, and logs how quality goes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from leafiqa.errors import InputError
from leafiqa.integrations.tracker import QualityTracker, Validation


def quality_callback(
    generate: Callable[[Any], Any],
    prompts: Sequence[str] | None = None,
    *,
    tracker: QualityTracker | None = None,
    on_validation: Callable[[Validation], None] = lambda validation: None,
) -> Any:
    """Return a callback for `Trainer(callbacks=[...])`.

    At the end of each validation it logs `quality/mean` and its like, which `ModelCheckpoint(monitor="quality/mean",
    mode="max")` can choose by. Its validations are kept in the training's checkpoints.

    Args:
        generate: called with the module; returns pictures, the same prompts and seeds each time.
        prompts: of the pictures, in order; None numbers them.
        tracker: what scores and compares; None makes one with `leaf` on the module's device.
        on_validation: called with each `Validation`, such as to write it somewhere.

    Raises:
        InputError: neither `lightning` nor `pytorch_lightning` is installed.
    """
    base = _callback_class()

    class QualityCallback(base):  # type: ignore[misc, valid-type]
        """Scores generated pictures at the end of each validation."""

        def __init__(self) -> None:
            self.tracker = tracker
            self._state: dict[str, Any] | None = None

        def _tracker(self, module: Any) -> QualityTracker:
            if self.tracker is None:
                self.tracker = QualityTracker("leaf", device=module.device)
            if self._state is not None:
                self.tracker.load_state_dict(self._state)
                self._state = None
            return self.tracker

        def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            """Generate, score, log."""
            if trainer.sanity_checking:
                return
            own = self._tracker(pl_module)
            own.update(generate(pl_module), prompts)
            # Several validations may fall on one step, and a validation by itself may come after a later one.
            found = own.compute(max(int(trainer.global_step), own.last_step))
            for name, value in found.scalars().items():
                pl_module.log(name, value, rank_zero_only=False, sync_dist=False, batch_size=1)
            on_validation(found)

        def state_dict(self) -> dict[str, Any]:
            """Return what a checkpoint keeps."""
            if self.tracker is None:
                return self._state or {}
            return self.tracker.state_dict()

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """Take what a checkpoint kept; used at the next validation."""
            self._state = state_dict or None

    return QualityCallback()


def _callback_class() -> Any:
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            continue
    raise InputError("quality_callback needs Lightning: pip install lightning")
