"""A distillation run: its state, its batches, its losses and one step of it."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leafiqa.distill.config import Config
from leafiqa.distill.crops import crops, ladder_crops
from leafiqa.distill.data import TrainingData
from leafiqa.distill.folding import fold_batch_norm
from leafiqa.distill.initial import begin, freeze, gate_is_new
from leafiqa.distill.losses.fidelity import fidelity_loss, preference
from leafiqa.distill.losses.point import point_loss
from leafiqa.distill.processes import Processes
from leafiqa.distill.reconcile import apply_scales, find_scales
from leafiqa.distill.spread import Spread

# Preference for a milder step over one that is 1, 2, ... levels stronger, in standard deviations.
_LADDER_STEP = 0.8
_NULL_CEILING = 0.1
# Weight of the loss by which a new gate learns to tell the sources apart.
_GATE_WEIGHT = 0.1
_PROBE_IMAGES = 1500
_PROBE_STEPS = 150


class Run:
    """The state of a run: all that a checkpoint holds."""

    def __init__(
        self, config: Config, data: TrainingData, processes: Processes, state: dict[str, Any] | None = None
    ) -> None:
        self.config, self.data = config, data
        self.device = processes.device
        torch.manual_seed(config.seed)
        # A resumed run takes its weights from the checkpoint, whatever has become of the initial ones.
        start = begin(config, weights=state is None)
        self.student = start.student.requires_grad_(True)
        self.generator = torch.Generator().manual_seed(config.seed)
        # A gate that was learned already stays with what it knows; these sources may be others.
        self.teach_gate = gate_is_new(config) and len(config.sources) == config.experts
        self.point_weights = torch.tensor([float(source.point_weight) for source in config.sources])
        self.scales = None if state is None else state.get("scales")
        if config.reconcile and self.scales is None:
            self.scales = find_scales(self.student.eval(), data, self.generator)
        if self.scales is not None:
            self.data = replace(data, targets=apply_scales(data, self.scales))
        self.pointed = data.targets.isfinite().nonzero().squeeze(1)
        self.trust = data.reliabilities**config.reliability_power
        self.pair_trust = data.pair_reliabilities**config.reliability_power
        self.usual_pair_trust = float(self.pair_trust.mean())
        if state is None and not start.knows:
            self._probe()
        freeze(self.student, config.freeze)
        self.student.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        processes.same(self.student.parameters())
        processes.same((self.student.feature_mean, self.student.feature_std))
        self.average = copy.deepcopy(self.student).eval()
        self.student.train()
        fold_batch_norm(self.student.backbone, torch.zeros(1, 3, config.crop, config.crop, device=self.device))
        learning = [p for p in self.student.backbone.parameters() if p.requires_grad]
        self.spread = Spread(self._see, learning, config.passes, processes)
        self.optimizer = torch.optim.AdamW(
            [{"params": learning}, {"params": self._head_parameters()}], weight_decay=config.weight_decay
        )
        # A pass over the evidence: over the scores, or over the compared pairs where these take longer.
        passes = [len(self.pointed) // config.batch, len(data.pairs) // config.pairs if config.pairs else 0]
        self.steps_per_epoch = max(1, *passes)
        self.factors = self._factors()
        self.total = self.steps_per_epoch * config.epochs
        # A short run would otherwise end before it is warm.
        self.warmup = min(config.warmup, max(1, self.total // 5))
        self.step = 0
        self.order: Tensor = torch.empty(0, dtype=torch.long)
        self.recent: dict[str, float] = {}
        if state is not None:
            self._restore(state)

    def _see(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            return self.student.features(pixels)

    def _head_parameters(self) -> list[torch.nn.Parameter]:
        residual = self.student.residual
        return [*self.student.head.parameters(), *([] if residual is None else residual.parameters())]

    def _factors(self) -> dict[str, float]:
        """Return what each loss is multiplied by.

        Scores and compared pairs share the weight by how many there are and how far they are trusted: a few dozen
        comparisons do not pull as hard as hundreds of scores, nor doubtful ones as hard as good ones.
        """
        config = self.config
        scored, compared = float(self.trust[self.pointed].sum()), float(self.pair_trust.sum())
        compared_share = compared / max(scored + compared, 1e-12)
        # Where there are fewer scores than steps, a step that has one makes up for those that have none.
        point_share = (1 - compared_share) / min(1.0, max(len(self.pointed), 1) / self.steps_per_epoch)
        return {
            "point": config.point_weight * point_share,
            "pair": config.pair_weight * point_share,
            "compared": config.pair_weight * compared_share,
            "ladder": config.ladder_weight,
            "null": config.null_weight,
            "gate": _GATE_WEIGHT,
        }

    def _probe(self) -> None:
        """Set the standardisation and fit the head on frozen features, before anything else learns.

        A random head sends random gradients into the pretrained backbone and spoils it: linear probing, then
        fine-tuning (Kumar et al., ICLR 2022).
        """
        among = self.pointed if len(self.pointed) else torch.arange(len(self.data.targets))
        chosen = among[torch.randperm(len(among), generator=self.generator)[:_PROBE_IMAGES]]
        self.student.eval()
        parts = []
        for part in chosen.split(16):
            pixels = crops(self.data.images[part], self.config.crop, self.generator)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
                parts.append(self.student.features(pixels.contiguous(memory_format=torch.channels_last)))
        features, targets, sources = torch.cat(parts), self.data.targets[chosen], self.data.source[chosen]
        self.student.feature_mean.copy_(features.mean(0))
        self.student.feature_std.copy_(features.std(0).clamp(min=1e-3))
        if not len(self.pointed):
            return  # nothing to fit a head on: comparisons alone will teach it
        standard = self.student.standardise(features)
        self.student.head.train()
        optimizer = torch.optim.AdamW(self.student.head.parameters(), lr=1e-3, weight_decay=0.1)
        for _ in range(_PROBE_STEPS):
            part = torch.randint(len(chosen), (128,), generator=self.generator)
            scores = self.student.head(standard[part]).squeeze(1).sigmoid()
            loss = point_loss(scores, targets[part], self.trust[chosen[part]])
            if self.teach_gate:
                loss = loss + _GATE_WEIGHT * self._gate_loss(standard[part], sources[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _gate_loss(self, standard: Tensor, sources: Tensor) -> Tensor:
        """Cross-entropy of the gate against the sources that images come from."""
        gate = self.student.head.gate(standard).float()  # type: ignore[operator, union-attr]
        return torch.nn.functional.cross_entropy(gate, sources.to(gate.device))

    @property
    def loss_names(self) -> list[str]:
        """Names of the losses that this run has, though not each in every step."""
        has = {
            "gate": self.teach_gate,
            "point": len(self.pointed) > 0,
            "pair": len(self.pointed) > 0,
            "compared": len(self.data.pairs) > 0 and self.config.pairs > 0,
            "ladder": len(self.data.ladders) > 0 and self.config.ladders > 0,
            "null": True,
        }
        return [name for name, there in has.items() if there]

    def batch(self) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Return this step's images with points, its compared pairs, the levels of its ladders, and its pixels.

        Pixels are those of the images with points, then both images of each pair, then three steps of each ladder,
        then one null image.
        """
        every, position = self.steps_per_epoch, self.step % self.steps_per_epoch
        if position == 0:
            self.order = self.pointed[torch.randperm(len(self.pointed), generator=self.generator)]
        # Spread evenly over an epoch's steps: whole batches, or fewer a step where the pairs decide the epoch's length.
        shown = min(len(self.order), every * self.config.batch)
        chosen = self.order[position * shown // every : (position + 1) * shown // every]
        compared = torch.empty(0, dtype=torch.long)
        if len(self.data.pairs) and self.config.pairs:
            compared = torch.randint(len(self.data.pairs), (self.config.pairs,), generator=self.generator)
        ladder_levels: list[Tensor] = []
        pictured = torch.cat([chosen, self.data.pairs[compared].flatten()])
        parts = [crops(self.data.images[pictured], self.config.crop, self.generator)]
        for _ in range(self.config.ladders if len(self.data.ladders) else 0):
            which = int(torch.randint(len(self.data.ladders), (1,), generator=self.generator))
            steps = torch.randperm(self.data.ladders.shape[1], generator=self.generator)[:3].sort().values
            ladder_levels.append(steps)
            parts.append(ladder_crops(self.data.ladders[which, steps], self.config.crop, self.generator))
        null = torch.randint(len(self.data.nulls), (1,), generator=self.generator)
        parts.append(crops(self.data.nulls[null], self.config.crop, self.generator))
        return chosen, compared, ladder_levels, torch.cat(parts)

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of this step's batch."""
        config, data = self.config, self.data
        chosen, compared, ladder_levels, pixels = self.batch()
        standard = self.student.standardise(self.spread.features(pixels))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
            logits = self.student.read(standard)
        # The student's share of the work is done; a few dozen scores are compared on the CPU, where the evidence is.
        scores = logits.float().sigmoid().cpu()
        count = len(chosen)
        losses: dict[str, Tensor] = {}
        if self.teach_gate:
            shown = torch.cat([chosen, data.pairs[compared].flatten()])
            losses["gate"] = self._gate_loss(standard[: len(shown)], data.source[shown]).cpu()
        if count:
            targets = data.targets[chosen]
            weights = self.trust[chosen]
            losses["point"] = point_loss(scores[:count], targets, weights * self.point_weights[data.source[chosen]])
            first, second = torch.triu_indices(count, count, offset=1)
            same = data.source[chosen][first] == data.source[chosen][second]
            first, second = first[same], second[same]
            losses["pair"] = fidelity_loss(
                scores[first] - scores[second],
                preference(targets[first] - targets[second], config.sigma),
                weights[first] * weights[second],
                config.sigma,
            )
        if len(compared):
            sides = scores[count : count + 2 * len(compared)].view(-1, 2)
            losses["compared"] = fidelity_loss(
                sides[:, 0] - sides[:, 1],
                data.preferences[compared],
                self.pair_trust[compared],
                config.sigma,
                self.usual_pair_trust,
            )
            count += 2 * len(compared)
        gaps, steps = [], []
        for number, levels in enumerate(ladder_levels):
            ladder = scores[count + 3 * number : count + 3 * number + 3]
            for a, b in ((0, 1), (0, 2), (1, 2)):
                gaps.append(ladder[a] - ladder[b])
                steps.append(levels[b] - levels[a])
        if gaps:
            targets = torch.special.ndtr(_LADDER_STEP * torch.stack(steps).float())
            losses["ladder"] = fidelity_loss(torch.stack(gaps), targets, torch.ones(len(gaps)), config.sigma)
        losses["null"] = (scores[-1:] - _NULL_CEILING).clamp(min=0).square().mean()
        return losses

    def advance(self) -> dict[str, float]:
        """Take one optimiser step and return the losses as numbers."""
        config = self.config
        warm = min(1.0, (self.step + 1) / self.warmup)
        decay = 0.5 * (1 + math.cos(math.pi * self.step / self.total))
        for group, peak in zip(self.optimizer.param_groups, config.rates):
            group["lr"] = peak * warm * decay
        losses = self.losses()
        total = torch.stack([self.factors[name] * value for name, value in losses.items()]).sum()
        self.optimizer.zero_grad(set_to_none=True)
        self.spread.backward(total)
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 2.0)
        self.optimizer.step()
        self.step += 1
        decay = min(config.ema, self.step / (self.step + 10))
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.student.parameters()):
                slow.lerp_(fast, 1 - decay)
        found = {name: value.item() for name, value in losses.items()}
        for name, value in found.items():
            self.recent[name] = 0.95 * self.recent.get(name, value) + 0.05 * value
        return found

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on."""
        return {
            "data": self.data.digest,
            "step": self.step,
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),  # dropout draws from it
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "order": self.order,
            "scales": self.scales,
            "recent": self.recent,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.step, self.order, self.recent = state["step"], state["order"], state["recent"]
