"""The Lightning callback: logs what ModelCheckpoint can choose by, and goes on from a checkpoint."""

import pytest
import torch

from leafiqa.integrations import QualityTracker, quality_callback
from tests.integrations.test_tracker import PROMPTS, pictures

lightning = pytest.importorskip("lightning.pytorch")


class Painter(lightning.LightningModule):
    """A 'generator' whose pictures get sharper with each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, _):
        return (self.weight - batch.mean()).square().mean()

    def validation_step(self, batch, _):
        self.log("loss", self.weight.abs().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader():
    return torch.utils.data.DataLoader(torch.ones(4, 1), batch_size=2)


def fit(folder, callback, epochs, resume=None):
    keep = lightning.callbacks.ModelCheckpoint(folder, monitor="quality/mean", mode="max", save_last=True)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        callbacks=[callback, keep],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Painter(), loader(), loader(), ckpt_path=resume)
    return trainer, keep


def test_quality_is_logged_and_kept_in_checkpoints(tmp_path, metric):
    found = []

    def generate(module):
        return pictures(blur=max(0, 2 - module.current_epoch))

    def callback():
        return quality_callback(generate, PROMPTS, tracker=QualityTracker(metric), on_validation=found.append)

    trainer, keep = fit(tmp_path, callback(), 2)
    assert [one.step for one in found] == [2, 4]  # not the sanity check
    assert trainer.callback_metrics["quality/mean"].item() == pytest.approx(found[-1].mean, abs=1e-6)
    assert keep.best_model_score.item() == pytest.approx(max(one.mean for one in found), abs=1e-6)
    fit(tmp_path, callback(), 3, resume=tmp_path / "last.ckpt")
    assert found[-1].step == 6 and found[-1].against("first").step == 2
    assert found[-1].against("previous").step == 4
