"""The marks that generators, editors and encoders leave in files, each with what it proves: one table.

Every row comes from public documentation or source code of its tool, or from files that it made. A row matches a
*field*: a place in the file (`PLACES`), a key, and a text. Of each field the first row that fits counts, so special
ones stand before general ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from utils.media_types import Proof, Says

PLACES = {
    "png": "PNG text",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "comment": "comment",
    "tag": "tag",
    "bytes": "data",
}
"""The places of fields, for people; `tag` is one of a video or recording, ID3 among them."""

MADE, CHANGED, TOOL = Says.GENERATED, Says.EDITED, Says.TOOL
STATED, USUAL = Proof.STATED, Proof.USUAL


class Field(NamedTuple):
    """One text of a file: the place, its key in lower case, and the text; all of them untrusted."""

    place: str
    key: str
    text: str


class MarkRow(NamedTuple):
    """One row: what fits the patterns `key` as a whole and `text` anywhere, in one of the places, says something and
    proves so much. In the name, `{0}` is what the first group of `text` found."""

    name: str
    places: str
    key: str
    text: str
    says: Says = MADE
    proof: Proof = STATED

    @property
    def code(self) -> str:
        """For programs: the name in lower case, `named` where it stands in the file only."""
        return re.sub(r"[^a-z0-9]+", "_", self.name.replace("{0}", "").lower()).strip("_") or "named"


_PARAMETERS = "parameters|usercomment|comment|description|imagedescription"
_MAKERS = "software|creatortool|make|model|generator|producer|encoder|encoded_by|softwareagent"
_ANY = "png exif xmp iptc comment tag"
_LABEL = r'\{[^{}]{0,400}"Label" ?: ?"?1\b'
"""The label that GB 45438-2025 asks of services in China, and that stands under its own key or within other text."""
_AIGC, _IN_AIGC, _WITHIN = "aigc(?:_info)?", r"^\s*" + _LABEL, r'"?AIGC"?.{0,9}' + _LABEL
_PRODUCER = r'.{0,400}"ContentProducer" ?: ?"(\w[^"]{0,60})"'
_COMPOSITE = r"\bcomposite(?:WithTrainedAlgorithmicMedia|Synthetic)$"
_EDITORS = (
    r"^((?:Adobe )?(?:Photoshop|Lightroom|Premiere|After Effects)[^(\n]{0,30}|GIMP|Snapseed|PicsArt|Pixelmator"
    r"|Affinity Photo|Final Cut|iMovie|DaVinci Resolve)"
)
_STEPS = r"steps: ?\d+, (?:.{0,200}, )?(?:sampler|cfg scale): "

MARKS = (
    # programs that write the settings of a generation
    MarkRow("SwarmUI", _ANY, ".*", r'"sui_image_params"'),
    MarkRow("RuinedFooocus", _ANY, ".*", r'"software": ?"RuinedFooocus"'),
    MarkRow("Fooocus", _ANY, "fooocus_scheme", ""),
    MarkRow("Fooocus", _ANY, _PARAMETERS, r"version\"?: ?\"?fooocus|\"metadata_scheme\": ?\"fooocus\""),
    MarkRow("SD.Next", _ANY, _PARAMETERS, r"\bapp: ?SD\.Next"),
    MarkRow("Stable Diffusion WebUI Forge", _ANY, _PARAMETERS, _STEPS + r".{0,2000}\bversion: ?f\d"),
    MarkRow("a model hosted by Civitai", _ANY, _PARAMETERS, r"\bcivitai resources: ?\["),
    MarkRow("Stable Diffusion web UI (AUTOMATIC1111)", _ANY, _PARAMETERS, _STEPS),
    MarkRow("ComfyUI", _ANY, ".*", r'"class_type" ?: ?"'),
    MarkRow("ComfyUI", _ANY, ".*", r'"last_node_id" ?: ?"?\d+'),
    MarkRow("InvokeAI", _ANY, "invokeai_(?:metadata|graph|workflow)|sd-metadata", r"\{"),
    MarkRow("InvokeAI", "png", "dream", r" -(?:s ?\d+|W ?\d+|C ?\d)"),
    MarkRow("NovelAI", _ANY, "software|source|title", r"^NovelAI"),
    MarkRow("Easy Diffusion", _ANY, "use_stable_diffusion_model|stable diffusion model", ""),
    MarkRow("Easy Diffusion", _ANY, _PARAMETERS, r'"use_stable_diffusion_model"'),
    MarkRow("Draw Things", _ANY, "creatortool|software", r"^Draw Things"),
    MarkRow("Mochi Diffusion", _ANY, ".*", r"generator: Mochi Diffusion|^Mochi Diffusion$"),
    MarkRow("Tensor.Art", "png", "generation_data", r"^\s*\{.*\"prompt\""),
    MarkRow("a model run by Replicate", _ANY, ".*", r"MediaProvenance \(v\d"),
    # services
    MarkRow("Midjourney", _ANY, "description|imagedescription|caption", r"\bJob ID: [0-9a-f]{8}-[0-9a-f-]{27}"),
    MarkRow("Midjourney", _ANY, _MAKERS, r"\bMidjourney\b"),
    MarkRow("Google AI", _ANY, "credit", r"^Made with Google AI"),
    MarkRow("Google AI", _ANY, "credit", r"^Edited with Google AI", CHANGED),
    MarkRow("Apple Clean Up", _ANY, "credit", r"^Apple Photos Clean Up", CHANGED),
    MarkRow("Meta AI", _ANY, "credit|description", r"^Imagined with (?:Meta )?AI"),
    MarkRow("Ideogram", _ANY, _MAKERS, r"^Ideogram(?: AI)?\b"),
    MarkRow("Reve", _ANY, _MAKERS, r"\breve\.com\b"),
    MarkRow("Aphrodite AI", _ANY, _MAKERS, r"^Aphrodite AI"),
    MarkRow("Adobe Firefly", _ANY, _MAKERS, r"\bAdobe[ _]Firefly"),
    MarkRow("OpenAI DALL·E", _ANY, _MAKERS, r"\bDALL[·-]?E\b"),
    MarkRow("OpenAI", _ANY, _MAKERS, r"\b(?:ChatGPT|OpenAI|gpt-image)\b"),
    MarkRow("Bing Image Creator", _ANY, _MAKERS, r"\bBing Image Creator\b"),
    MarkRow("Microsoft Designer", _ANY, _MAKERS, r"\bMicrosoft Designer\b"),
    MarkRow("Stability AI", _ANY, _MAKERS, r"\b(?:Stability ?AI|DreamStudio)\b"),
    MarkRow("Stable Diffusion", _ANY, _MAKERS, r"\bStable[ -]?Diffusion\b"),
    MarkRow("Leonardo.Ai", _ANY, _MAKERS, r"\bLeonardo\.? ?AI\b"),
    MarkRow("FLUX (Black Forest Labs)", _ANY, _MAKERS, r"\bBlack Forest Labs\b|^FLUX\.\d"),
    MarkRow("NightCafe", _ANY, _MAKERS, r"\bNightCafe\b"),
    MarkRow("Recraft", _ANY, _MAKERS, r"\brecraft\.ai\b"),
    MarkRow("Suno", _ANY, ".*", r"^made with suno\b"),
    MarkRow("Runway", _ANY, _MAKERS, r"^Runway(?:ML| Gen|$)"),
    MarkRow("ElevenLabs", _ANY, _MAKERS, r"\bEleven ?Labs\b"),
    # standards by which any generator may name itself
    MarkRow("{0}", "xmp", "aisystemused", r"^\s*(\S.{0,60})"),
    MarkRow("a generative model of {0}", _ANY, _AIGC, _IN_AIGC + _PRODUCER),
    MarkRow("a generative model of {0}", _ANY, ".*", _WITHIN + _PRODUCER),
    MarkRow("a generative model", _ANY, _AIGC, _IN_AIGC),
    MarkRow("a generative model", _ANY, ".*", _WITHIN),
    MarkRow("a generative model", _ANY, "digitalsourcetype", r"\btrainedAlgorithmicMedia$"),
    MarkRow("a generative model", _ANY, "digitalsourcetype", _COMPOSITE, CHANGED),
    # what is usual only
    MarkRow("xAI Grok", _ANY, "imagedescription|description|caption", r"^Signature: ?[\w+/=]{64,}", MADE, USUAL),
    MarkRow("Higgsfield", "png", "hf-job-id", "", MADE, USUAL),
    MarkRow("Samsung Galaxy AI", "bytes", "samsung", r'genAIType"? ?: ?[1-9]', CHANGED, USUAL),
    MarkRow("DeepFaceLab", "bytes", "deepfacelab", "", TOOL, USUAL),
    MarkRow("FFmpeg", "tag", "encoder", r"^Lav[fc]\d", TOOL, USUAL),
    MarkRow("HandBrake", "tag", "encoder|encoding_tool", r"^HandBrake", TOOL, USUAL),
    MarkRow("TikTok or CapCut", "tag", r"com\.bytedance\.info|aigc_info", r"^\{", TOOL, USUAL),
    MarkRow("TikTok or CapCut", "tag", "comment", r"^vid:v", TOOL, USUAL),
    MarkRow("YouTube or Google", "tag", "handler_name", r"produced by Google Inc", TOOL, USUAL),
    MarkRow("Canva", _ANY, _MAKERS, r"^Canva\b", TOOL),
    MarkRow("a screenshot", _ANY, "usercomment|description", r"^Screenshot$", TOOL),
    MarkRow("{0}", _ANY, _MAKERS, _EDITORS, TOOL),
)  # fmt: skip


_COMPILED = [
    (frozenset(row.places.split()), re.compile(row.key), re.compile(row.text, re.IGNORECASE | re.DOTALL))
    for row in MARKS
]


def find_matches(fields: list[Field]) -> Iterator[tuple[int, str, Field]]:
    """The number of the first row that fits each field, what its first group found, and the field; each name and
    meaning once."""
    seen = set()
    for field in fields:
        for number, (places, key, text) in enumerate(_COMPILED):
            found = field.place in places and key.fullmatch(field.key) and text.search(field.text)
            if not found:
                continue
            group = (found.group(1) if text.groups else "").strip()
            meaning = (MARKS[number].name.format(group), MARKS[number].says)
            if meaning not in seen:
                seen.add(meaning)
                yield number, group, field
            break
