"""One line for a video whose faces and voice were judged: the parts stay as they are, and neither hides the other.

A rule, and no further network: there is too little video with known sound to calibrate one. Its errors follow from
those of the parts by the union bound, without any assumption on how they depend on each other: a real video is called
fake no more often than its faces are and its voice is, together; and one with a fake part is called real no more often
than that part alone is.
"""

from __future__ import annotations

from utils.types import Notice, Outcome, Overall, Verdict

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


def fuse(faces: Verdict, voice: Verdict) -> Overall | None:
    """What the faces and the voice of one video say together.

    Args:
        faces: the verdict of the most suspicious face.
        voice: the verdict on the sound.

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
