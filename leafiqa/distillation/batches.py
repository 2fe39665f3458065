"""What a training step gets to see: images with evidence, some of them degraded too, compared pairs, and nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from leafiqa.distillation.config import Config
from leafiqa.distillation.data import TrainingData
from leafiqa.model.preprocess import Preprocess
from leafiqa.training.augmentation import random_crop
from leafiqa.training.degradations.arrays import LEVELS
from leafiqa.training.degradations.ladders import DEGRADATIONS, degrade

# Degraded versions of one picture.
_STEPS = 2


@dataclass(frozen=True)
class Ladder:
    """A picture of a step and degraded versions of it, cut at the same place.

    Attributes:
        image: index of the image in the run's data; None of a pristine photograph.
        name: what was done to it, a key of `DEGRADATIONS`.
        levels: how strongly, `(3,)`: 0, then the others, rising.
        places: where the three pictures are among those of the step.
    """

    image: int | None
    name: str
    levels: Tensor
    places: tuple[int, ...]


@dataclass
class Batch:
    """One step's pictures, and what is known of them.

    Attributes:
        chosen: indices of images with scores; they are the first pictures.
        compared: indices of compared pairs; both images of each are the next pictures.
        pictures: `(3, h, w)` uint8 each, the last one a picture of nothing.
        ladders: what stands among them degraded.
    """

    chosen: Tensor
    compared: Tensor
    pictures: list[Tensor]
    ladders: list[Ladder] = field(default_factory=list)


class Batches:
    """Draws the pictures of a run's steps.

    Args:
        config: the run.
        data: what there is to see.
        pointed: indices of images with scores, of which each epoch shows every one.
        steps_per_epoch: steps of an epoch.
        generator: draws everything that is random.
    """

    def __init__(
        self, config: Config, data: TrainingData, pointed: Tensor, steps_per_epoch: int, generator: torch.Generator
    ) -> None:
        self._config, self._data, self._pointed = config, data, pointed
        self._every, self._generator = steps_per_epoch, generator
        self._share = config.crop / config.area
        self._smaller = Preprocess(area=config.area**2) if config.stored not in (0, config.area) else None
        self.order: Tensor = torch.empty(0, dtype=torch.long)

    def draw(self, step: int) -> Batch:
        """Return what a step shows, given how many were taken before."""
        config, data = self._config, self._data
        position = step % self._every
        if position == 0:
            self.order = self._pointed[self._permutation(len(self._pointed))]
        # Spread evenly over an epoch's steps: whole batches, or fewer a step where the pairs decide the epoch's length.
        shown = min(len(self.order), self._every * config.batch)
        chosen = self.order[position * shown // self._every : (position + 1) * shown // self._every]
        compared = torch.empty(0, dtype=torch.long)
        if len(data.pairs) and config.pairs:
            compared = torch.randint(len(data.pairs), (config.pairs,), generator=self._generator)
        batch = Batch(chosen, compared, [])
        spoilt = set(self._permutation(len(chosen))[: config.ladders].tolist())
        extra: list[Tensor] = []
        first_extra = len(chosen) + 2 * len(compared)
        for place, image in enumerate(chosen.tolist()):
            if place in spoilt:
                shown_picture, *degraded = self._ladder(
                    batch, data.images[image], image, place, first_extra + len(extra)
                )
                extra += degraded
            else:
                shown_picture = self.cut(data.images[image])
            batch.pictures.append(shown_picture)
        batch.pictures += [self.cut(data.images[i]) for i in data.pairs[compared].flatten().tolist()]
        if data.pristine and config.ladders:
            place = first_extra + len(extra)
            which = int(torch.randint(len(data.pristine), (1,), generator=self._generator))
            extra += self._ladder(batch, data.pristine[which], None, place, place + 1)
        batch.pictures += extra
        null = int(torch.randint(len(data.nulls), (1,), generator=self._generator))
        batch.pictures.append(self.cut(data.nulls[null]))
        return batch

    def cut(self, picture: Tensor) -> Tensor:
        """Return a random crop, flipped or not, of one picture or of several of one size, at the size of training."""
        if self._smaller is not None:
            batch = picture if picture.ndim == 4 else picture[None]
            resized = (self._smaller.resize(batch) * 255).round().to(torch.uint8)
            picture = resized if picture.ndim == 4 else resized[0]
        return random_crop(picture, self._share, self._generator)

    def _permutation(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator)

    def _ladder(
        self, batch: Batch, picture: Tensor, image: int | None, own_place: int, next_place: int
    ) -> list[Tensor]:
        """Note a ladder in the batch and return its pictures: the own one, then those from `next_place` on."""
        names = list(DEGRADATIONS)
        name = names[int(torch.randint(len(names), (1,), generator=self._generator))]
        seed = int(torch.randint(2**31, (1,), generator=self._generator))
        levels = (self._permutation(LEVELS)[:_STEPS] + 1).sort().values
        pixels = picture.permute(1, 2, 0).numpy()
        steps = [picture]
        for level in levels.tolist():
            steps.append(torch.from_numpy(degrade(pixels, name, level, seed)).permute(2, 0, 1))
        places = (own_place, *range(next_place, next_place + _STEPS))
        batch.ladders.append(Ladder(image, name, torch.cat([torch.zeros(1, dtype=torch.long), levels]), places))
        return list(self.cut(torch.stack(steps)).unbind(0))
