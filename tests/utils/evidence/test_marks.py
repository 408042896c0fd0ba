"""Each row of the table names its generator in a file made as the tool makes it, and no camera is called one."""

from __future__ import annotations

import io
import json
import random
import struct
import time
import zlib
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from tests.utils.evidence.signing import MODEL, picture
from utils.evidence.answer import to_provenance
from utils.evidence.fields import read_fields
from utils.evidence.marks import MARKS, find_matches
from utils.evidence.reading import EvidenceReader
from utils.media_types import Proof, Provenance, Says

STEPS = "a portrait\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512"
EXIF = {"ImageDescription": 0x010E, "Make": 0x010F, "Model": 0x0110, "Software": 0x0131, "Artist": 0x013B}
JOB = "12345678-90ab-cdef-1234-567890abcdef"
AIGC = '{"Label":"1","ContentProducer":"doubao","ProduceID":"1"}'
XMP_HEAD = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'


def png(**texts: str) -> tuple[bytes, str]:
    held = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        held.add_itxt(key.replace("_", "-") if key.startswith(("sd_", "hf_")) else key, text, zip=len(text) > 200)
    return picture("PNG", pnginfo=held), "png"


def jpeg(comment: str | None = None, **tags: str) -> tuple[bytes, str]:
    exif = Image.Exif()
    for name, text in tags.items():
        if name == "UserComment":
            exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
        else:
            exif[EXIF[name]] = text
    return picture("JPEG", exif=exif, **({"comment": comment.encode()} if comment else {})), "jpeg"


def packet(properties: str) -> bytes:
    return (
        f'{XMP_HEAD}<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:photoshop="http://ns.adobe.com/'
        'photoshop/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:dc="http://purl.org/dc/'
        f'elements/1.1/" xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/">{properties}</rdf:Description></rdf:RDF>'
        "</x:xmpmeta>"
    ).encode()


def xmp(properties: str) -> tuple[bytes, str]:
    return picture("JPEG", xmp=packet(properties)), "jpeg"


def tag(muxer: str = "mp4", **tags: str) -> tuple[list[tuple[str, str]], str]:
    """The tags of a recording as PyAV reads them."""
    held = io.BytesIO()
    with av.open(held, "w", format=muxer, options={"movflags": "use_metadata_tags"} if muxer == "mp4" else {}) as sink:
        sink.metadata.update(tags)
        stream = sink.add_stream("aac" if muxer == "mp4" else "libmp3lame", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    with av.open(io.BytesIO(held.getvalue())) as source:
        found = [*source.metadata.items(), *(pair for s in source.streams for pair in s.metadata.items())]
    return found, muxer


def trailing(data: bytes) -> tuple[bytes, str]:
    return picture() + data, "jpeg"


CASES: list[tuple[str, Says, Proof, Any]] = [
    ("SwarmUI", Says.GENERATED, Proof.STATED, png(parameters='{"sui_image_params": {"prompt": "x", "steps": 20}}')),
    ("RuinedFooocus", Says.GENERATED, Proof.STATED, png(parameters='{"Prompt": "x", "software": "RuinedFooocus"}')),
    ("Fooocus", Says.GENERATED, Proof.STATED, png(fooocus_scheme="fooocus", parameters="{}")),
    ("Fooocus", Says.GENERATED, Proof.STATED, jpeg(UserComment=STEPS + ", Version: Fooocus v2.5.5")),
    ("SD.Next", Says.GENERATED, Proof.STATED, png(parameters="x\nSteps: 10, Size: 8x8, Sampler: DPM, App: SD.Next")),
    ("Stable Diffusion WebUI Forge", Says.GENERATED, Proof.STATED, png(parameters=STEPS + ", Version: f2.0.1v1.10.1")),
    ("a model hosted by Civitai", Says.GENERATED, Proof.STATED, jpeg(UserComment=STEPS + ", Civitai resources: [{}]")),
    ("Stable Diffusion web UI (AUTOMATIC1111)", Says.GENERATED, Proof.STATED, png(parameters=STEPS)),
    ("Stable Diffusion web UI (AUTOMATIC1111)", Says.GENERATED, Proof.STATED, jpeg(UserComment=STEPS)),
    ("ComfyUI", Says.GENERATED, Proof.STATED, png(prompt='{"3": {"class_type": "KSampler", "inputs": {}}}')),
    ("ComfyUI", Says.GENERATED, Proof.STATED, png(workflow='{"last_node_id": 9, "nodes": [], "links": []}')),
    ("ComfyUI", Says.GENERATED, Proof.STATED, jpeg(Model='prompt:{"3": {"class_type": "KSampler"}}')),
    ("ComfyUI", Says.GENERATED, Proof.STATED, tag(comment='{"prompt": {"3": {"class_type": "KSampler"}}}')),
    ("InvokeAI", Says.GENERATED, Proof.STATED, png(invokeai_metadata='{"positive_prompt": "x"}')),
    ("InvokeAI", Says.GENERATED, Proof.STATED, png(sd_metadata='{"app_id": "invoke-ai/InvokeAI"}')),
    ("InvokeAI", Says.GENERATED, Proof.STATED, png(Dream='"a fox" -s 50 -S 1234 -W 512 -H 512 -C 7.5')),
    ("NovelAI", Says.GENERATED, Proof.STATED, png(Software="NovelAI", Title="AI generated image", Comment="{}")),
    ("Easy Diffusion", Says.GENERATED, Proof.STATED, png(use_stable_diffusion_model="sd-v1-5", prompt="x")),
    ("Easy Diffusion", Says.GENERATED, Proof.STATED, jpeg(UserComment='{"use_stable_diffusion_model": "sd-v1-5"}')),
    ("Draw Things", Says.GENERATED, Proof.STATED, xmp("<xmp:CreatorTool>Draw Things</xmp:CreatorTool>")),
    ("Mochi Diffusion", Says.GENERATED, Proof.STATED, xmp(
        "<dc:description><rdf:Alt><rdf:li>Include in Image: x; Seed: 1; Generator: Mochi Diffusion 5.2</rdf:li>"
        "</rdf:Alt></dc:description>")),
    ("Tensor.Art", Says.GENERATED, Proof.STATED, png(generation_data='{"models": [], "prompt": "x"}')),
    ("a model run by Replicate", Says.GENERATED, Proof.STATED, png(
        description="MediaProvenance (v1.0.2): A spec for describing the origins of AI-generated images.")),
    ("Midjourney", Says.GENERATED, Proof.STATED, png(Description=f"a portrait --v 6.1 Job ID: {JOB}", Author="x")),
    ("Midjourney", Says.GENERATED, Proof.STATED, jpeg(Software="Midjourney v6")),
    ("Google AI", Says.GENERATED, Proof.STATED, xmp("<photoshop:Credit>Made with Google AI</photoshop:Credit>")),
    ("Google AI", Says.EDITED, Proof.STATED, xmp("<photoshop:Credit>Edited with Google AI</photoshop:Credit>")),
    ("Apple Clean Up", Says.EDITED, Proof.STATED, xmp("<photoshop:Credit>Apple Photos Clean Up</photoshop:Credit>")),
    ("Meta AI", Says.GENERATED, Proof.STATED, xmp("<photoshop:Credit>Imagined with AI</photoshop:Credit>")),
    ("Ideogram", Says.GENERATED, Proof.STATED, jpeg(Make="Ideogram AI")),
    ("Reve", Says.GENERATED, Proof.STATED, jpeg(Software="reve.com")),
    ("Aphrodite AI", Says.GENERATED, Proof.STATED, jpeg(Make="Aphrodite AI")),
    ("Adobe Firefly", Says.GENERATED, Proof.STATED, xmp("<xmp:CreatorTool>Adobe Firefly</xmp:CreatorTool>")),
    ("OpenAI DALL·E", Says.GENERATED, Proof.STATED, png(Software="DALL-E 3")),
    ("OpenAI", Says.GENERATED, Proof.STATED, jpeg(Software="ChatGPT")),
    ("Bing Image Creator", Says.GENERATED, Proof.STATED, jpeg(Software="Bing Image Creator")),
    ("Microsoft Designer", Says.GENERATED, Proof.STATED, jpeg(Software="Microsoft Designer")),
    ("Stability AI", Says.GENERATED, Proof.STATED, png(Software="Stability AI DreamStudio")),
    ("Stable Diffusion", Says.GENERATED, Proof.STATED, jpeg(Software="Stable Diffusion XL")),
    ("Leonardo.Ai", Says.GENERATED, Proof.STATED, jpeg(Software="Leonardo.AI")),
    ("FLUX (Black Forest Labs)", Says.GENERATED, Proof.STATED, jpeg(Make="Black Forest Labs", Model="FLUX.1")),
    ("NightCafe", Says.GENERATED, Proof.STATED, jpeg(Software="NightCafe Creator")),
    ("Recraft", Says.GENERATED, Proof.STATED, jpeg(Software="recraft.ai")),
    ("Suno", Says.GENERATED, Proof.STATED, tag("mp3", comment=f"made with suno; created=2025-10-08; id={JOB}")),
    ("Runway", Says.GENERATED, Proof.STATED, tag(encoder="Runway", software="Runway Gen-4")),
    ("ElevenLabs", Says.GENERATED, Proof.STATED, tag("mp3", encoded_by="ElevenLabs")),
    ("ImageModel 2", Says.GENERATED, Proof.STATED, xmp(
        "<Iptc4xmpExt:AISystemUsed>ImageModel 2</Iptc4xmpExt:AISystemUsed>")),
    ("a generative model of doubao", Says.GENERATED, Proof.STATED, xmp(f"<TC260:AIGC>{AIGC}</TC260:AIGC>")),
    ("a generative model of doubao", Says.GENERATED, Proof.STATED, png(AIGC=AIGC)),
    ("a generative model of doubao", Says.GENERATED, Proof.STATED, jpeg(UserComment=f'{{"AIGC":{AIGC}}}')),
    ("a generative model", Says.GENERATED, Proof.STATED, tag(AIGC='{"Label":"1","ServiceProvider":""}')),
    ("a generative model", Says.GENERATED, Proof.STATED, jpeg(UserComment='{"AIGC":{"Label":"1"}}')),
    ("a generative model", Says.GENERATED, Proof.STATED, xmp(
        f"<Iptc4xmpExt:DigitalSourceType>{MODEL}</Iptc4xmpExt:DigitalSourceType>")),
    ("a generative model", Says.EDITED, Proof.STATED, xmp(
        "<Iptc4xmpExt:DigitalSourceType>compositeWithTrainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>")),
    ("a generative model", Says.EDITED, Proof.STATED, xmp(
        "<Iptc4xmpExt:DigitalSourceType>compositeSynthetic</Iptc4xmpExt:DigitalSourceType>")),
    ("xAI Grok", Says.GENERATED, Proof.USUAL, jpeg(ImageDescription="Signature: " + "Ab1+" * 30, Artist=JOB)),
    ("Higgsfield", Says.GENERATED, Proof.USUAL, png(hf_job_id=JOB)),
    ("Samsung Galaxy AI", Says.EDITED, Proof.USUAL, trailing(b'PhotoEditor_Re_Edit_Data{"genAIType":2,"x":1}')),
    ("DeepFaceLab", Says.TOOL, Proof.USUAL, trailing(b"\x80\x04source_landmarks image_to_face_mat.")),
    ("FFmpeg", Says.TOOL, Proof.USUAL, tag()),
    ("HandBrake", Says.TOOL, Proof.USUAL, ([("encoder", "HandBrake 1.7.3 2024021100")], "mp4")),
    ("TikTok or CapCut", Says.TOOL, Proof.USUAL, ([("com.bytedance.info", '{"data":1}')], "mp4")),
    ("TikTok or CapCut", Says.TOOL, Proof.USUAL, ([("comment", "vid:v12044gd0000abc")], "mp4")),
    ("YouTube or Google", Says.TOOL, Proof.USUAL, (
        [("handler_name", "ISO Media file produced by Google Inc.")], "mp4")),
    ("Canva", Says.TOOL, Proof.STATED, xmp("<xmp:CreatorTool>Canva (Renderer) doc=DA</xmp:CreatorTool>")),
    ("a screenshot", Says.TOOL, Proof.STATED, jpeg(UserComment="Screenshot")),
    ("Adobe Photoshop 25.0", Says.TOOL, Proof.STATED, jpeg(Software="Adobe Photoshop 25.0 (Windows)")),
]  # fmt: skip


def read(data: Any, format_name: str) -> Provenance:
    if isinstance(data, list):
        return to_provenance(EvidenceReader("").read(io.BytesIO(b""), format_name, "x/none", lambda: data))
    mime = {"png": "image/png", "jpeg": "image/jpeg"}[format_name]
    return to_provenance(EvidenceReader("").read(io.BytesIO(data), format_name, mime, list))


@pytest.mark.parametrize(("name", "says", "proof", "made"), CASES, ids=lambda value: str(value)[:20])
def test_each_row_is_named_with_what_it_proves(name: str, says: Says, proof: Proof, made: Any) -> None:
    found = read(*made)
    assert (name, says, proof) in {(mark.name, mark.says, mark.proof) for mark in found.marks}
    assert found.notices == ()
    counts = proof is not Proof.USUAL and says in (Says.GENERATED, Says.EDITED)
    assert (found.statement is not None) == counts
    if counts:
        assert name in (found.statement or "")


def test_no_row_is_without_a_case() -> None:
    """Of thirty generators and more."""
    matched = set()
    for _, _, _, (data, format_name) in CASES:
        is_tags = isinstance(data, list)
        fields = read_fields(io.BytesIO(b"" if is_tags else data), format_name, data if is_tags else [], [])
        matched |= {row for row, _, _ in find_matches(fields)}
    assert matched == set(range(len(MARKS)))
    generators = {row.name for row in MARKS if row.says is Says.GENERATED and row.proof is not Proof.USUAL}
    assert len(generators) >= 30


@pytest.mark.parametrize(
    "text", ['{"label": 1, "box": [0, 0, 9, 9]}', '{"id": 7, "label": "1"}', '{"scene": "TikTok"}']
)
def test_notes_in_json_are_no_label_and_no_tool(text: str) -> None:
    for made in (jpeg(text), jpeg(UserComment=text), png(Comment=text), ([("comment", text)], "mp4")):
        assert read(*made).marks == ()


CAMERAS = (
    ("Canon", "Canon EOS R5", "Firmware Version 1.8.1"), ("NIKON CORPORATION", "NIKON Z 6_2", "Ver.01.60"),
    ("SONY", "ILCE-7M4", "ILCE-7M4 v2.00"), ("FUJIFILM", "X-T5", "Digital Camera X-T5 Ver3.00"),
    ("Panasonic", "DC-S5M2", "Ver.2.1"), ("OM Digital Solutions", "OM-1", "Version 1.5"),
    ("LEICA CAMERA AG", "LEICA Q3", "1.2.0"), ("Apple", "iPhone 15 Pro", "17.4.1"),
    ("samsung", "SM-S928B", "S928BXXU1AXB5"), ("Google", "Pixel 8 Pro", "HDR+ 1.0.540104767zd"),
)  # fmt: skip
SENTENCES = (
    "A day at the runway of Leonardo da Vinci airport", "Stable diffusion of gas, experiment 4", "Imagen de la fiesta",
    "Midjourney through the Alps", "A dream", "prompt: smile", "Steps: 20 to the tower", "workflow of the kitchen",
    "Signature: J. Smith", "Open day at OpenAI's office", "Made with love", "Flux of people", "parameters unknown",
)  # fmt: skip

CREDITS = (
    "Runway Manhattan",
    "OpenAI",
    "Midjourney fan club",
    "Stability AI press office",
    "Ideogram",
    "Example Agency",
)


def iptc(odd: bytes = b"", **texts: str) -> bytes:
    """A segment of a JPEG with records of IPTC's second kind."""
    records = odd + b"".join(
        struct.pack(">BBBH", 0x1C, 2, {"credit": 110, "source": 115}[key], len(text)) + text.encode()
        for key, text in texts.items()
    )
    body = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0" + struct.pack(">I", len(records)) + records + b"\0" * (len(records) % 2)
    return struct.pack(">HH", 0xFFED, len(body) + 2) + body


def camera_photo(index: int) -> tuple[bytes, str]:
    """A photo with the EXIF that a camera writes, and what its owner wrote into it."""
    rng = random.Random(index)
    make, model, firmware = CAMERAS[index % len(CAMERAS)]
    exif = Image.Exif()
    exif.update(
        {0x010F: make, 0x0110: model, 0x0131: firmware, 0x0112: rng.choice((1, 6, 8)), 0x0132: "2024:05:01 10:00:00"}
    )
    exif.update({0x010E: rng.choice(("", *SENTENCES)), 0x013B: rng.choice(("", "Runway Smith", "A. Leonardo"))})
    held = exif.get_ifd(0x8769)
    held.update({0x9003: "2024:05:01 10:00:00", 0x829A: TiffImagePlugin.IFDRational(1, 250), 0x8827: 400})
    held.update({0x920A: TiffImagePlugin.IFDRational(50), 0xA434: f"{make} 50mm F1.8", 0x927C: rng.randbytes(500)})
    held[0x9286] = rng.choice((b"\0" * 44, b"ASCII\0\0\0" + rng.choice(SENTENCES).encode(), b""))
    extra = {"comment": rng.choice(SENTENCES).encode()} if index % 4 == 0 else {}
    if index % 3 == 0:
        kind = MODEL.replace("trainedAlgorithmicMedia", "digitalCapture")
        extra["xmp"] = packet(
            f"<Iptc4xmpExt:DigitalSourceType>{kind}</Iptc4xmpExt:DigitalSourceType><photoshop:Source>"
            f"{rng.choice(CREDITS)}</photoshop:Source><photoshop:Credit>{rng.choice(CREDITS)}</photoshop:Credit>"
        )
    made = picture("JPEG", exif=exif, quality=rng.choice((85, 92, 97)), **extra)
    return made[:2] + iptc(credit=rng.choice(CREDITS), source=rng.choice(CREDITS)) + made[2:], "jpeg"


def test_no_camera_photo_is_called_generated() -> None:
    """200 of ten makers; a camera's word is stated and no more."""
    for index in range(200):
        found = read(*camera_photo(index))
        assert found.statement is None, (index, found.marks)
        assert not [mark for mark in found.marks if mark.says in (Says.GENERATED, Says.EDITED)]
        (camera,) = [mark for mark in found.marks if mark.code == "camera"]
        assert CAMERAS[index % len(CAMERAS)][1] in camera.name
        assert camera.proof is Proof.STATED
        assert "never lowers suspicion" in camera.text
        assert found.notices == ()


def test_the_steps_of_an_editor_are_told() -> None:
    step = '<rdf:li stEvt:action="saved" stEvt:when="2024-05-0{0}" stEvt:softwareAgent="Adobe Photoshop 25.{0}"/>'
    history = "".join(step.format(n) for n in range(1, 4))
    made = packet(
        f'<xmpMM:History xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmlns:stEvt="http://ns.adobe.com/xap/1.0/sType/'
        f'ResourceEvent#"><rdf:Seq>{history}</rdf:Seq></xmpMM:History>'
    )
    for is_compressed in (None, False, True):
        held = PngImagePlugin.PngInfo()
        held.add_itxt("XML:com.adobe.xmp", f"<?xpacket?>{made.decode()}<?xpacket?>", zip=bool(is_compressed))
        is_jpeg = is_compressed is None
        found = read(*((picture("JPEG", xmp=made), "jpeg") if is_jpeg else (picture("PNG", pnginfo=held), "png")))
        steps = [mark.value for mark in found.marks if mark.code == "history"]
        assert steps[0] == "saved by Adobe Photoshop 25.1 on 2024-05-01"
        assert len(steps) == 3


DRAWN = "<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"
ODD_CHUNK = struct.pack(">I", 8) + b"eXIfnonsense" + struct.pack(">I", zlib.crc32(b"eXIfnonsense"))
SHORTS = b"Exif\0\0" + struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x9C9C, 3, 2, 0xFFFF, 1, 0)
DAMAGED: dict[str, tuple[bytes, str, set[str]]] = {
    "PNG with odd EXIF": (png(parameters=STEPS)[0][:33] + ODD_CHUNK + png(parameters=STEPS)[0][33:], "png", {"exif"}),
    "WebP with odd EXIF": (picture("WEBP", exif=b"Exif\0\0nonsense", xmp=packet(DRAWN)), "webp", {"exif"}),
    "EXIF of another kind": (picture(exif=SHORTS, xmp=packet(DRAWN)), "jpeg", set()),
    "JPEG with odd IPTC": (xmp(DRAWN)[0][:2] + iptc(b"nonsense") + xmp(DRAWN)[0][2:], "jpeg", {"iptc"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_part_takes_nothing_from_the_others(name: str) -> None:
    """And its own name is told, but for a value of a kind that it never has."""
    data, format_name, lost = DAMAGED[name]
    told = EvidenceReader("").read(io.BytesIO(data), format_name, f"image/{format_name}", list)
    assert {*told["failed"]} == lost
    assert to_provenance(told).statement is not None


def test_exif_of_a_format_that_pillow_does_not_open() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Apple", "iPhone 15"
    data = struct.pack(">I4s4s", 24, b"ftyp", b"heic") + b"\0" * 12 + exif.tobytes()
    fields = read_fields(io.BytesIO(data), "heic", [], [])
    assert [(field.key, field.text) for field in fields] == [("make", "Apple"), ("model", "iPhone 15")]


def test_texts_of_a_file_are_bounded() -> None:
    found = EvidenceReader("").read(io.BytesIO(png(parameters=STEPS + "x" * 400_000)[0]), "png", "image/png", list)
    assert len(json.dumps(found)) < 2000
    assert found["failed"] == []


@pytest.mark.parametrize(
    "spam",
    [
        b"<x:xmpmeta " * 500_000,
        b"<rdf:RDF >" + b"<a b='" * 900_000,
        b"".join(
            b"<x:xmpmeta xmlns:x='%d'>" % n + b"<li>a" * 26_000 + b"</li>" * 26_000 + b"</x:xmpmeta>" for n in range(8)
        ),
        png(parameters="steps: 1, sampler: " * 1000, comment='{"AIGC":{' * 2000, prompt='"nodes": [' * 2000)[0],
    ],
    ids=len,
)
def test_spam_costs_little(spam: bytes) -> None:
    """It is bounded by what is looked at, not by the limit of processor time."""
    started = time.process_time()
    data = spam if spam.startswith(b"\x89PNG") else picture("PNG") + spam
    assert EvidenceReader("").read(io.BytesIO(data), "png", "image/png", list)["failed"] == []
    assert time.process_time() - started < 5
