"""Every code block of README.md and docs/api.md is executed, against a live server where it asks one.

Commands that would train or serve are taken apart by the parser of their own script or by `make -n` instead; a block
that nothing here knows fails the test.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tests.utils.media.films import write_clip
from tests.web_app.helpers import accept_weights, listening, make_report, make_settings, running_worker
from utils.config import Settings
from utils.media.sniff import sniff
from utils.types import Outcome, Pixels, Report
from web_app.app import create_app
from web_app.auth.network import FORWARDING_HEADERS
from web_app.jobs.runner import Progress
from web_app.services import EXTENSION
from web_app.storage.upload import MULTIPART_OVERHEAD

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/api.md")
ADDRESS = "http://localhost:5000"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.M | re.S)
SHELL = ("", "bash", "sh")
STRICT_CURL = 'set -eu\ncurl() { command curl -sS --fail-with-body "$@"; }\npython3() { "$PYTHON" "$@"; }\n'
INTERPRETER = (".venv/bin/python", "python")


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Its lines as words; continued lines joined, comments left out."""
        joined = self.text.replace("\\\n", " ")
        return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def blocks(language: tuple[str, ...]) -> list[Block]:
    found = [
        Block(page, name, text)
        for page in PAGES
        for name, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8"))
    ]
    return [block for block in found if block.language in language]


def label(block: Block) -> str:
    return f"{block.page}: {block.text.splitlines()[0][:40]}"


def test_every_block_is_of_a_kind_that_is_executed() -> None:
    known = {*SHELL, "json", "python"}
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert text.count("```") == 2 * len(FENCE.findall(text)), page
        assert {name for name, _ in FENCE.findall(text)} <= known


@pytest.mark.parametrize("block", blocks(("json",)), ids=label)
def test_json_is_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, photo: Pixels) -> Path:
    """A folder with the files that the blocks name."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "folder").mkdir()
    Image.fromarray(photo).save(folder / "photo.jpg")
    Image.fromarray(photo).resize((200, 200)).save(folder / "folder" / "small.png")
    write_clip(folder / "clip.mp4", [photo[:256, 128:384]] * 8, rate=8)
    return folder


def canned(path: Path, progress: Progress) -> Report:
    content = path.read_bytes()
    progress("decode", 0.1)
    return make_report(content, Outcome.FAKE, sniff(content).kind)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a live server, with canned reports in place of the networks."""
    settings = make_settings(tmp_path_factory.mktemp("server"))
    app = create_app(settings, verify=accept_weights)
    with listening(app) as port, running_worker(settings, canned):
        yield f"http://127.0.0.1:{port}"
    app.extensions[EXTENSION].close()


def run(command: list[str], folder: Path, **variables: str) -> str:
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environ = {
        **outside,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}",
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "TELLTALE_DETECTION__ENGINE": "openvino",  # as for a version that is not tiny
        **variables,
    }
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("block", blocks(("python",)), ids=label)
def test_python_runs(block: Block, server: str, place: Path, tiny_root: Path) -> None:
    code = block.text.replace(ADDRESS, server)
    assert run([sys.executable, "-c", code], place, TELLTALE_WEIGHTS__DIR=str(tiny_root))


def test_the_commands_of_the_guide_run_in_their_order(server: str, place: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl and bash are needed")
    guide = [block.text for block in blocks(("bash",)) if block.page == "docs/api.md"]
    assert len(guide) >= 4
    run(["bash", "-c", STRICT_CURL + "\n".join(guide).replace(ADDRESS, server)], place)
    assert (place / "report.pdf").read_bytes().startswith(b"%PDF-")
    assert json.loads((place / "report.json").read_text())["document"] == "telltale-report"
    assert (place / "history.csv").read_text().startswith("id,name,")


@pytest.mark.parametrize("block", [b for b in blocks(SHELL) if b.page == "README.md"], ids=label)
def test_the_commands_of_the_readme_run(block: Block, server: str, place: Path, tiny_root: Path) -> None:
    for words in block.commands:
        handler = HANDLERS.get(words[0], there_is)
        handler(words, server, place, tiny_root)


@pytest.mark.parametrize("block", [b for b in blocks(("", "sh")) if b.page == "docs/api.md"], ids=label)
def test_what_asks_the_internet_is_refused_here_for_the_right_reason(block: Block, server: str, place: Path) -> None:
    for words in block.commands:
        assert words[0] == "curl"
        words = [word.replace(ADDRESS, server) for word in words]
        answer = json.loads(run(["curl", "-sS", *words[1:]], place))
        assert answer["code"] == "not_available"  # it is switched off, but it is a route and the request has its form


def make(words: list[str], server: str, place: Path, tiny_root: Path) -> None:
    assert run(["make", "-n", "-C", str(ROOT), *words[1:]], place)


def curl(words: list[str], server: str, place: Path, tiny_root: Path) -> None:
    run(["curl", "-sS", "--fail-with-body", *(word.replace(ADDRESS, server) for word in words[1:])], place)


def python(words: list[str], server: str, place: Path, tiny_root: Path) -> None:
    script = words[1]
    assert (ROOT / script).is_file()
    if script in ("train.py", "quick_train.py"):  # tests/test_train.py runs them
        importlib.import_module(script.removesuffix(".py")).build_parser().parse_args(words[2:])
    else:
        run([sys.executable, str(ROOT / script), *words[2:]], place, TELLTALE_WEIGHTS__DIR=str(tiny_root))


def there_is(words: list[str], server: str, place: Path, tiny_root: Path) -> None:
    """A line of the drawing of the house: names of files and folders, then what they hold."""
    names = [word for word in words if (ROOT / word).exists()]
    assert words[0] in names or words[0] == "instance/", f"{words[0]} does not exist"


Handler = Callable[[list[str], str, Path, Path], None]
HANDLERS: dict[str, Handler] = {"make": make, "curl": curl, **dict.fromkeys(INTERPRETER, python)}


# The nginx example of docs/operations.md is well formed, made of directives that exist, and fits the server.

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
TOKEN = re.compile(r"[{};]|[^\s{};]+")
ALLOWED = {
    "http": {"limit_conn_zone", "server"},
    "server": {
        "listen", "server_name", "ssl_certificate", "ssl_certificate_key", "client_max_body_size",
        "client_body_timeout", "limit_conn", "location",
    },
    "location": {"proxy_pass", "proxy_set_header", "proxy_buffering", "proxy_read_timeout"},
}  # fmt: skip
"""Directives of nginx that may stand in each context: nginx.org/en/docs/dirindex.html."""
BLOCKS = {"server", "location"}
VARIABLES = {"$binary_remote_addr", "$host", "$proxy_add_x_forwarded_for", "$scheme"}


class Directive(NamedTuple):
    context: str
    words: tuple[str, ...]


def parse(text: str) -> list[Directive]:
    """Every directive with its context; fails where braces or semicolons do not fit, or a name is unknown there."""
    contexts, words, found = ["http"], [], []
    for token in TOKEN.findall(text):
        if token in ("{", ";"):
            assert words, f"nothing stands before {token}"
            assert words[0] in ALLOWED[contexts[-1]], f"{words[0]} in {contexts[-1]}"
            assert (token == "{") == (words[0] in BLOCKS), f"{words[0]} ends with {token}"
            found.append(Directive(contexts[-1], tuple(words)))
            contexts += [words[0]] if token == "{" else []
            words = []
        elif token == "}":
            assert not words, f"{words} has no semicolon"
            assert len(contexts) > 1, "a brace too many"
            contexts.pop()
        else:
            words.append(token)
    assert not words
    assert contexts == ["http"]
    return found


@pytest.mark.parametrize(
    "broken",
    ["server { listen 80; ", "server { listen 80 }", "server { lisen 80; }", "proxy_pass http://x;", "server; ", "}"],
)
def test_the_parser_refuses_what_nginx_would(broken: str) -> None:
    with pytest.raises(AssertionError):
        parse(broken)


def test_the_example_is_well_formed_and_fits() -> None:
    (text,) = re.findall(r"^```nginx\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = parse(text)
    assert set(re.findall(r"\$\w+", text)) <= VARIABLES
    settings = Settings()
    given = {each.words[0]: each.words[1:] for each in found}
    assert given["proxy_pass"] == (f"http://{settings.server.host}:{settings.server.port}",)
    size = int(given["client_max_body_size"][0].removesuffix("m")) * 1024 * 1024
    assert size >= settings.media.max_file_mb * 1_000_000 + MULTIPART_OVERHEAD
    headers = {each.words[1] for each in found if each.words[0] == "proxy_set_header"}
    known = {"HTTP_" + header.upper().replace("-", "_") for header in headers - {"Host"}}
    assert known <= set(FORWARDING_HEADERS)
    assert headers >= {"Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Prefix"}
    zone = given["limit_conn_zone"][1].removeprefix("zone=").partition(":")[0]
    assert given["limit_conn"][0] == zone
