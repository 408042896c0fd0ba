"""From a calibrated logit to words: fake, real, inconclusive or no face, always with the reasons.

A video whose faces and voice were judged gets one line more; the parts stay as they are, and neither hides the other.
That is a rule, and no further network: there is too little video with known sound to calibrate one. Its errors follow
from those of the parts by the union bound, without any assumption on how they depend on each other: a real video is
called fake no more often than its faces are and its voice is, together; and one with a fake part is called real no more
often than that part alone is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from utils.detection.calibration import Calibration
from utils.metrics import sigmoid
from utils.types import ExpertScore, FaceReport, Notice, Outcome, Overall, Verdict

NOT_FOR_PHOTOS = "It judges videos only: a photo has no course in time."
TOO_SHORT = "It needs a person to be seen in at least four frames of the video."
"""Why an expert has nothing to judge in a medium, which is no fault of the installation."""

SHORT = MappingProxyType(
    {
        "small_face": "too small",
        "face_cut": "cut by the border",
        "face_unsharp": "unsharp or enlarged",
        "face_turned": "not upright",
        "no_photograph": "no photograph",
    }
)
"""Why a face is not judged, in a few words, by the code of the reason."""

HEADLINES = {
    Outcome.FAKE: "Substantial evidence of manipulation",
    Outcome.REAL: "Little evidence of manipulation",
    Outcome.INCONCLUSIVE: "Inconclusive",
    Outcome.NO_FACE: "No face found",
    Outcome.NO_SPEECH: "No speech found",
}


_FACES = {
    Outcome.FAKE: "the faces show signs of manipulation",
    Outcome.REAL: "the faces show little of manipulation",
    Outcome.INCONCLUSIVE: "the faces are undecided",
    Outcome.NO_FACE: "no face was judged",
}
_VOICE = {
    Outcome.FAKE: "the voice sounds made",
    Outcome.REAL: "the voice sounds recorded",
    Outcome.INCONCLUSIVE: "the voice is undecided",
    Outcome.NO_SPEECH: "no speech was judged",
}


def decide(
    logit: float,
    experts: Sequence[ExpertScore],
    calibration: Calibration,
    *,
    threshold: float,
    obstacle: Notice | None = None,
    part: Notice | None = None,
    choices: float = 1.0,
    cover: Notice | None = None,
) -> Verdict:
    """Decide about one person.

    Args:
        logit: calibrated logit of fake.
        obstacle: why this face cannot be judged; nothing is decided then.
        part: that only a part of the person's frames stands out, which the logit is of; such a person is never real.
        cover: that something likely covers the face; then it is not called fake.
    """
    probability = sigmoid(logit)
    missing = [e for e in experts if not e.available and e.missing_because not in (NOT_FOR_PHOTOS, TOO_SHORT)]
    band = calibration.band(threshold, len(missing), choices)
    interval = calibration.interval(probability)
    reasons = [notice for notice in (obstacle, part, cover) if notice is not None]
    outcome = outcome_of(probability, band)
    hindered = {Outcome.FAKE: cover, Outcome.REAL: part}.get(outcome)
    if obstacle is not None or hindered is not None:
        outcome = Outcome.INCONCLUSIVE
    else:
        reasons.append(band_notice(outcome, band, "manipulation", "real and manipulated faces"))
    reasons += _expert_reasons(experts)
    reasons += [Notice("expert_missing", f"{e.title} is missing: {e.missing_because}") for e in missing]
    headline = f"Not judged: {SHORT[obstacle.code]}" if obstacle else HEADLINES[outcome]
    return Verdict(outcome, headline, probability, interval, tuple(reasons))


def band_notice(outcome: Outcome, band: tuple[float, float], of: str, confused: str) -> Notice:
    """Where the probability `of` something lies, beside the undecided band, in which both kinds were `confused`."""
    real_below, fake_above = map(per_cent, band)
    if outcome is Outcome.FAKE:
        return Notice("above_band", f"The probability of {of} lies above {fake_above}.")
    if outcome is Outcome.REAL:
        return Notice("below_band", f"The probability of {of} lies below {real_below}.")
    text = f"Between {real_below} and {fake_above} {confused} were confused too often in our tests to decide."
    return Notice("within_band", text)


def remembered_notice(said: float, now: float, of: str) -> tuple[Notice, ...]:
    """What corrections have to do with a probability, where it can be seen; `said` is what it was without them."""
    before, after = likely(said), likely(now)
    text = f"Users corrected verdicts on {of} like this one; that moved its score from {before} to {after}."
    return () if before == after else (Notice("corrections_remembered", text),)


def deciding_face(faces: Sequence[FaceReport]) -> FaceReport | None:
    """Whose verdict is that of the medium: the most suspicious of the faces that can be judged, else of all.

    Of two that are not called fake, one of which a part stands out counts more than one without, whatever it is called.
    """
    return max(faces, key=_suspicion, default=None)


def _suspicion(face: FaceReport) -> tuple[bool, bool, bool, float]:
    verdict = face.verdict
    fake, real = verdict.outcome is Outcome.FAKE, verdict.outcome is Outcome.REAL
    return face.judged, fake, not real, verdict.probability or 0.0


def verdict_of_all(faces: Sequence[FaceReport], left_out: Notice | None, seen: tuple[Notice, ...] = ()) -> Verdict:
    """What is said about a medium: the verdict of its deciding face, and about whom nothing is said.

    Args:
        left_out: says that there are people who could be judged and were not; then the medium is not called real.
        seen: how much of a clip was looked at; told where there is no face.
    """
    deciding = deciding_face(faces)
    if deciding is None:
        reason = Notice("no_face", "No face was found, so nothing can be said about whether a face in it is real.")
        return Verdict(Outcome.NO_FACE, HEADLINES[Outcome.NO_FACE], None, None, (reason, *seen))
    verdict, passed_over = deciding.verdict, [face for face in faces if not face.judged]
    told = [left_out] if left_out else []
    if passed_over and deciding.judged:
        who = ", ".join(f"{face.id + 1} ({SHORT[face.verdict.reasons[0].code]})" for face in passed_over)
        told.append(Notice("not_judged", f"Nothing is said about {'people' if passed_over[1:] else 'person'} {who}."))
    if not told:
        return verdict
    reasons = (verdict.reasons[0], *told, *verdict.reasons[1:])
    if left_out and verdict.outcome is Outcome.REAL:
        outcome = Outcome.INCONCLUSIVE
        return replace(verdict, outcome=outcome, headline=HEADLINES[outcome], reasons=(*told, *verdict.reasons[1:]))
    return replace(verdict, reasons=reasons)


def per_cent(share: float) -> str:
    """A share in 0..1 as whole per cent, which no line break may part: `38 %`."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def likely(probability: float) -> str:
    """A probability as whole per cent that never claims certainty."""
    sign = ">\N{NO-BREAK SPACE}" if probability > 0.99 else "<\N{NO-BREAK SPACE}" if probability < 0.01 else ""
    return sign + per_cent(min(max(probability, 0.01), 0.99))


def outcome_of(probability: float, band: tuple[float, float]) -> Outcome:
    """Fake at or above the undecided band, real at or below it, else inconclusive."""
    real_below, fake_above = band
    if probability >= fake_above:
        return Outcome.FAKE
    return Outcome.REAL if probability <= real_below else Outcome.INCONCLUSIVE


def _expert_reasons(experts: Sequence[ExpertScore]) -> list[Notice]:
    available = [(e, e.probability) for e in experts if e.available and e.probability is not None]
    if not available:
        return []
    weightiest, alone = max(available, key=lambda pair: pair[0].weight)
    shares = [probability for _, probability in available]
    reasons = [
        Notice(
            "weightiest_expert",
            f"{weightiest.title}, which looks at {weightiest.looks_at}, counted most ({per_cent(weightiest.weight)}); "
            f"by itself it gives {likely(alone)}.",
        )
    ]
    if max(shares) - min(shares) > 0.6:
        reasons.append(Notice("experts_disagree", "The networks disagree widely about this face."))
    return reasons


def fuse(faces: Verdict, voice: Verdict) -> Overall | None:
    """What the faces and the voice of one video say together.

    Returns:
        None where neither was judged.
    """
    parts = [part.outcome for part in (faces, voice) if part.outcome.judged]
    if not parts:
        return None
    if Outcome.FAKE in parts:
        outcome = Outcome.FAKE
    else:
        outcome = Outcome.REAL if set(parts) == {Outcome.REAL} else Outcome.INCONCLUSIVE
    said = f"{_FACES[faces.outcome]}, {_VOICE[voice.outcome]}"
    headline = said[0].upper() + said[1:]
    return Overall(outcome, headline, (Notice(*_reason(faces.outcome, voice.outcome)),))


def _reason(faces: Outcome, voice: Outcome) -> tuple[str, str]:
    if faces is voice:
        return f"both_{faces}", "Faces and voice are judged alike."
    if not voice.judged:
        return "faces_only", "Only the faces could be judged."
    if not faces.judged:
        return "voice_only", "Only the voice could be judged."
    if voice is Outcome.FAKE:
        return "fake_voice", "The voice decides: whoever is seen, what is heard was likely made."
    if faces is Outcome.FAKE:
        return "fake_faces", "The faces decide: whoever is heard, what is seen was likely manipulated."
    return "one_undecided", "One part is undecided, so the video as a whole is."
