"""Train a tiny diffusion model and follow the quality of its pictures: `python validate_diffusion.py`.

The model learns smooth coloured pictures that are made on the spot. Every N steps it generates the same pictures again
(the same class and noise each time), and `QualityTracker` says how good they are and whether they got better. Needs
diffusers: `pip install diffusers`.
"""

import argparse

import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

from leafiqa.integrations import QualityTracker

CLASSES = 4


def examples(count: int, side: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return smooth pictures `(count, 3, side, side)` in [-1, 1] and their classes, which set the main colour."""
    noise = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    coarse = torch.rand(count, 3, 4, 4, generator=noise)
    coarse[torch.arange(count), labels % 3] += 0.5
    smooth = torch.nn.functional.interpolate(coarse, size=side, mode="bicubic", align_corners=False)
    return (smooth / 1.5).clamp(0, 1) * 2 - 1, labels


@torch.no_grad()
def generate(model: UNet2DModel, count: int, side: int) -> tuple[torch.Tensor, list[str]]:
    """Return pictures in [0, 1] and a prompt for each: the same noise and classes each time."""
    scheduler = DDIMScheduler()
    scheduler.set_timesteps(20)
    labels = torch.arange(count) % CLASSES
    latents = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    for timestep in scheduler.timesteps:
        latents = scheduler.step(model(latents, timestep, labels).sample, timestep, latents).prev_sample
    return (latents / 2 + 0.5).clamp(0, 1), [f"class {label}, noise {i}" for i, label in enumerate(labels.tolist())]


def main() -> None:
    """Train, and validate every so many steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = UNet2DModel(
        sample_size=arguments.side,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        num_class_embeds=CLASSES,
    )
    optimiser, scheduler = torch.optim.AdamW(model.parameters(), lr=1e-3), DDPMScheduler()
    tracker = QualityTracker("leaf")
    for step in range(1, arguments.steps + 1):
        images, labels = examples(16, arguments.side, seed=step)
        noise, timesteps = torch.randn_like(images), torch.randint(0, 1000, (len(images),))
        loss = (model(scheduler.add_noise(images, noise, timesteps), timesteps, labels).sample - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % arguments.every == 0:
            model.eval()
            tracker.update(*generate(model, arguments.pictures, arguments.side))
            model.train()
            print(tracker.compute(step), flush=True)


if __name__ == "__main__":
    main()
