"""diffusers: the same noise at every validation, quality along the steps of a pipeline, the example of the docs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from leafiqa.errors import InputError
from leafiqa.integrations import QualityTracker, StepQuality, validate_pipeline
from tests.integrations.test_tracker import pictures

diffusers = pytest.importorskip("diffusers")
EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "validate_diffusion.py"


class Recorder:
    """Stands in for a pipeline: notes the noise that each picture begins with."""

    def __init__(self):
        self.noise = {}

    def __call__(self, prompt, generator, num_inference_steps):
        for text, one in zip(prompt, generator):
            self.noise.setdefault(text, []).append(torch.randn(1, generator=one).item())
        return type("Output", (), {"images": list(pictures(count=len(prompt)))})


def test_each_picture_has_its_own_noise_whatever_the_batch(metric):
    found = []
    for size in (1, 3):
        pipeline = Recorder()
        tracker = QualityTracker(metric)
        validate_pipeline(pipeline, tracker, ["a", "b"], seeds=(0, 1, 2), batch_size=size, num_inference_steps=2)
        assert tracker.compute(1).images == 6
        found.append(pipeline.noise)
    assert found[0] == found[1]
    assert len({*found[0]["a"], *found[0]["b"]}) == 6  # no two pictures begin with one noise
    with pytest.raises(InputError, match="must be lists that are not empty"):
        validate_pipeline(Recorder(), QualityTracker(metric), [])
    with pytest.raises(InputError, match="must return a picture for each prompt"):
        validate_pipeline(lambda **_: type("O", (), {"images": []}), QualityTracker(metric), ["a"])


@pytest.fixture(scope="module")
def pipeline():
    """Stable Diffusion with random weights, a few thousand of them; prompts are embeddings."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    made = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=None, tokenizer=None, unet=unet,
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def test_quality_along_the_steps(pipeline, metric):
    look = StepQuality(metric, every=2)
    made = pipeline(
        prompt_embeds=torch.zeros(2, 4, 8),
        guidance_scale=1.0,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=look,
        output_type="pt",
    ).images
    assert sorted(look.scores) == [0, 2, 4] and all(len(of) == 2 for of in look.scores.values())
    # The last look is at what the pipeline returns.
    assert look.scores[4] == pytest.approx(metric(made.float()).tolist(), abs=1e-4)
    with pytest.raises(InputError, match="leave 'latents'"):
        look(pipeline, 0, 0, {})


def test_the_example_of_the_docs_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--steps", "6", "--every", "3", "--pictures", "8", "--side", "16"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^step (\d+): 0\.\d{3}", done.stdout, re.M) == ["3", "6"]
    assert "against first (step 3)" in done.stdout
