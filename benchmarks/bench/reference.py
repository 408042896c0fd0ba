"""What the product is measured against: the same analysis without any of its economies.

torch in eager mode and float32, one child process per file, each frame and each face by itself through each expert, and
ResNeXt-50 once more for the LSTM. It is made of the product's own public functions and gives the same probability.
"""

from __future__ import annotations

from pathlib import Path

import torch

from models.cards import EXPERT_NAMES, IMAGE_EXPERTS, expert_card
from models.ensemble_model import Ensemble
from models.preprocess import prepare
from utils.detection.engine import TrackScores, read_gate
from utils.detection.people import Person
from utils.detection.pipeline import Analyser, Scores, cut_for, find_faces, make_report
from utils.media import decode_media
from utils.networks import load_ensemble
from utils.weights import verify_current, weights_root


class ReferencePipeline:
    """Loads the networks once more, as plain torch modules."""

    def __init__(self, analyser: Analyser) -> None:
        version = verify_current(analyser.settings)
        ensemble, _ = load_ensemble(weights_root(analyser.settings), version, analyser.experts)
        self.ensemble: Ensemble = ensemble.eval()
        self._gate = read_gate(version)
        self._analyser = analyser

    def analyse(self, path: Path) -> list[float | None]:
        """The calibrated probability of each person, in the order of `Report.faces`."""
        settings = self._analyser.settings
        media = decode_media(path, settings.media, settings.sandbox)
        people = cut_for(media, find_faces(media, self._analyser), self._analyser)
        with torch.inference_mode():
            scores = Scores([self._score(person) for person in people.judged], 0.0)
        return [face.verdict.probability for face in make_report(people, scores, self._analyser).faces]

    def _score(self, person: Person) -> TrackScores:
        ensemble, crops, quality = self.ensemble, person.crops, person.quality
        logits = torch.full((len(crops), len(EXPERT_NAMES)), float("nan"))
        features = []
        for row, crop in enumerate(crops):
            image = torch.from_numpy(crop.pixels).permute(2, 0, 1)[None].float().div(255)
            for column, name in enumerate(EXPERT_NAMES):
                if name in IMAGE_EXPERTS and name in ensemble.experts:
                    card = expert_card(name, tiny=ensemble.tiny)
                    logits[row, column] = ensemble.experts[name](prepare(image, card)).logit[0]
            if len(crops) > 1 and "resnext" in ensemble.experts:
                card = expert_card("resnext", tiny=ensemble.tiny)
                features.append(ensemble.experts["resnext"](prepare(image, card)).feature)
        whole = logits.mean(0, keepdim=True)
        sequence = torch.cat(features) if features else None
        whole[0, EXPERT_NAMES.index("lstm")] = ensemble.sequence_logit(sequence)
        mixed = self._gate.mix(whole.numpy(), quality.mean(0, keepdims=True))
        frames = self._gate.mix(logits.numpy(), quality).logit
        return TrackScores(float(mixed.logit[0]), mixed.weights[0], mixed.calibrated[0], frames)
