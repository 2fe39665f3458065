"""A distillation run: its state, its batches, its losses and one step of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from leafiqa.distillation.batches import Batch, Batches
from leafiqa.distillation.config import Config
from leafiqa.distillation.data import TrainingData
from leafiqa.distillation.scales import apply_scales, find_scales
from leafiqa.distillation.start import begin, gate_is_new
from leafiqa.errors import EvidenceError
from leafiqa.model.shapes import in_batches
from leafiqa.training.degradations.ladders import DEGRADATIONS
from leafiqa.training.gradient_cache import GradientCache
from leafiqa.training.losses.fidelity import fidelity_loss, preference
from leafiqa.training.losses.point import point_loss
from leafiqa.training.optimisation import Optimisation, freeze
from leafiqa.training.processes import Processes

# Preference for a milder step over one that is 1, 2, ... levels stronger, in standard deviations.
_LADDER_STEP = 0.8
_NULL_CEILING = 0.1
# Weight of the loss by which a new gate learns to tell the sources apart.
_GATE_WEIGHT = 0.1
_PROBE_IMAGES = 1500
_PROBE_STEPS = 150


class Trainer:
    """A distillation run: all that a checkpoint holds, and how to take a step.

    Torch's random numbers are the caller's to seed and to put back, see `own_random_numbers`.
    """

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
        # A gate that was trained before is left to the kinds that it was trained for; these sources may be others.
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
        self.usual_pair_trust = float(self.pair_trust.mean()) if len(self.pair_trust) else 0.0
        # A pass over the evidence: over the scores, or over the compared pairs where these take longer.
        passes = [len(self.pointed) // config.batch, len(data.pairs) // config.pairs if config.pairs else 0]
        self.steps_per_epoch = max(1, *passes)
        self.total = self.steps_per_epoch * config.epochs
        self.batches = Batches(config, data, self.pointed, self.steps_per_epoch, self.generator)
        if state is None and not start.trained_head:
            self._probe()
        freeze(self.student, config.freeze)
        self.student.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        processes.same(self.student.parameters())
        processes.same((self.student.feature_mean, self.student.feature_std))
        self.optimisation = Optimisation(
            self.student,
            rates=config.rates,
            weight_decay=config.weight_decay,
            total=self.total,
            warmup=config.warmup,
            ema=config.ema,
            example=torch.zeros(1, 3, config.crop, config.crop, device=self.device),
        )
        self.cache = GradientCache(self._see, self.optimisation.backbone, config.passes, processes)
        self.factors = self._factors()
        self.recent: dict[str, float] = {}
        if state is not None:
            self._restore(state)

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.optimisation.step

    def _see(self, pixels: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            return self.student.features(pixels)

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
            "damage": config.damage_weight,
            "null": config.null_weight,
            "gate": _GATE_WEIGHT,
        }

    def _probe(self) -> None:
        """Set the standardisation and fit the head on frozen features, before anything else learns.

        A random head sends random gradients into the pretrained backbone and spoils it: linear probing, then
        fine-tuning (Kumar et al., ICLR 2022).
        """
        among = torch.arange(len(self.data.targets))
        chosen = among[torch.randperm(len(among), generator=self.generator)[:_PROBE_IMAGES]]
        if len(chosen) < 2:
            raise EvidenceError("a new head is fitted to at least two images with evidence; there is one")
        self.student.eval()
        images = [self.batches.cut(self.data.images[i]) for i in chosen.tolist()]

        def see(pixels: Tensor) -> Tensor:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
                return self.student.features(pixels.contiguous(memory_format=torch.channels_last).float() / 255)

        features = in_batches(see, images, 16)
        self.student.feature_mean.copy_(features.mean(0))
        self.student.feature_std.copy_(features.std(0).clamp(min=1e-3))
        scored = self.data.targets[chosen].isfinite()
        features, chosen = features[scored], chosen[scored]
        targets, sources = self.data.targets[chosen], self.data.source[chosen]
        if not len(chosen):
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
            "ladder": self.config.ladders > 0 and len(self.pointed) + len(self.data.pristine) > 0,
            "damage": self.config.ladders > 0 and self.config.damage_weight > 0 and len(self.pointed) > 0,
            "null": True,
        }
        return [name for name, there in has.items() if there]

    def losses(self) -> dict[str, Tensor]:
        """Return the losses of this step's batch."""
        config, data = self.config, self.data
        batch = self.batches.draw(self.step)
        chosen, compared = batch.chosen, batch.compared
        standard = self.student.standardise(self.cache.features(batch.pictures))
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
        if batch.ladders:
            losses["ladder"] = self._ladder_loss(scores, batch)
            if "damage" in self.loss_names:
                losses["damage"] = self._damage_loss(scores, batch)
        losses["null"] = (scores[-1:] - _NULL_CEILING).clamp(min=0).square().mean()
        return losses

    def _ladder_loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Fidelity loss of a picture against its degraded versions, and of these against each other."""
        gaps, steps = [], []
        for ladder in batch.ladders:
            of = scores[list(ladder.places)]
            for a, b in torch.combinations(torch.arange(len(of))).tolist():
                gaps.append(of[a] - of[b])
                steps.append(ladder.levels[b] - ladder.levels[a])
        targets = torch.special.ndtr(_LADDER_STEP * torch.stack(steps).float())
        return fidelity_loss(torch.stack(gaps), targets, torch.ones(len(gaps)), self.config.sigma)

    def _damage_loss(self, scores: Tensor, batch: Batch) -> Tensor:
        """Point-wise loss of degraded images against what the degradation leaves of their score."""
        places: list[int] = []
        targets: list[Tensor] = []
        weights: list[Tensor] = []
        for ladder in batch.ladders:
            if ladder.image is not None:
                left = 1 - DEGRADATIONS[ladder.name].cost * ladder.levels[1:]
                places += ladder.places[1:]
                targets.append(self.data.targets[ladder.image] * left)
                weights.append(self.trust[ladder.image].expand(len(left)))
        if not places:
            return scores.sum() * 0
        return point_loss(scores[places], torch.cat(targets), torch.cat(weights))

    def advance(self) -> dict[str, float]:
        """Take one optimiser step and return the losses as numbers."""
        self.optimisation.begin_step()
        losses = self.losses()
        self.cache.backward(torch.stack([self.factors[name] * value for name, value in losses.items()]).sum())
        self.optimisation.end_step()
        found = {name: value.item() for name, value in losses.items()}
        for name, value in found.items():
            self.recent[name] = 0.95 * self.recent.get(name, value) + 0.05 * value
        return found

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on."""
        return {
            **self.optimisation.state(),
            "data": self.data.digest,
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),  # dropout draws from it
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "order": self.batches.order,
            "scales": self.scales,
            "recent": self.recent,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.optimisation.restore(state)
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.batches.order, self.recent = state["order"], state["recent"]
