"""The files around the code: pins, Makefile, container, configuration, and rules that hold for every source file."""

from __future__ import annotations

import ast
import configparser
import functools
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import pytest
import yaml

from utils.config import Settings, keys_of, load_settings
from web_app.jobs.broker import read_roles

ROOT = Path(__file__).resolve().parent.parent
OUR_PACKAGES = ("models", "utils", "web_app")
OUR_SCRIPTS = tuple(sorted(path.name for path in ROOT.glob("*.py")))
SOURCES = sorted([*(p for name in OUR_PACKAGES for p in (ROOT / name).rglob("*.py")), *(ROOT / s for s in OUR_SCRIPTS)])
SECTIONS: dict[str, type[Any]] = get_type_hints(Settings)
KEYS = [(section, field) for section, cls in SECTIONS.items() for field in keys_of(cls)]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pins(name: str) -> dict[str, str]:
    """Normalised package names and versions of a requirements file, those it includes left out."""
    lines = [line.strip() for line in read(name).splitlines()]
    wanted = [line for line in lines if line and not line.startswith(("#", "-r "))]
    return dict(re.fullmatch(r"([a-z0-9][a-z0-9-]*)==([0-9][0-9a-z.]*)", line).groups() for line in wanted)


# requirements


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("requirements*.txt")))
def test_every_requirement_has_one_exact_version(name):
    assert pins(name)


def test_further_requirements_build_on_the_first_without_repeating_it():
    for name in ("requirements-dev.txt", "requirements-scale.txt"):
        assert "-r requirements.txt" in read(name).splitlines()
        assert not pins(name).keys() & product_pins().keys()


def product_pins() -> dict[str, str]:
    """Of requirements.txt and the two files that it includes."""
    parts = [pins(name) for name in ("requirements.txt", "requirements-serve.txt", "requirements-voices.txt")]
    assert read("requirements.txt").count("\n-r ") == 2
    assert sum(map(len, parts)) == len({name for part in parts for name in part}), "none is in two of them"
    return {name: version for part in parts for name, version in part.items()}


def test_serving_alone_installs_no_torch():
    assert not {"torch", "torchvision", "timm", "silero-vad"} & pins("requirements-serve.txt").keys()


@functools.cache
def imported_packages(path: Path) -> set[str]:
    """Top-level names that a file imports absolutely."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_every_import_of_the_product_is_a_direct_requirement():
    distributions = importlib.metadata.packages_distributions()
    known = product_pins().keys() | pins("requirements-scale.txt").keys()
    ours = {*OUR_PACKAGES, *(Path(s).stem for s in OUR_SCRIPTS)}
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for name in imported_packages(path) - ours - set(sys.stdlib_module_names)
        if not {d.lower().replace("_", "-") for d in distributions.get(name, [name])} & known
    }
    assert undeclared == set()


def test_one_machine_needs_nothing_of_the_requirements_for_many():
    """They are imported inside functions, where a setting asks for them."""
    optional = {"celery", "kombu", "redis", "psycopg", "boto3", "botocore"}
    eager = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or node.names[0].name]
        if name.partition(".")[0] in optional
    }
    assert eager == set()


# Makefile and continuous integration


def test_second_start_installs_nothing(tmp_path):
    """With an environment whose stamp fits, `make venv` only says so; with another stamp it would install."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f'#!/bin/sh\nif [ "$1" = -m ]; then echo "called: $*"; else exec {sys.executable} "$@"; fi\n')
    python.chmod(0o755)
    command = ["make", "--no-print-directory", "venv", f"VENV={tmp_path}", f"PYTHON={sys.executable}"]
    outputs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert "called: -m pip install" in outputs[0]
    assert outputs[1] == "==> Packages are up to date\n"
    (tmp_path / ".requirements").write_text("other")
    assert "called: -m pip install" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout


def test_unsupported_python_is_refused_with_a_sentence(tmp_path):
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.2; else exit 1; fi\n')
    old.chmod(0o755)
    done = subprocess.run(["make", "python", f"PYTHON={old}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "Python 3.9.2 is not supported: Telltale needs Python 3.11, 3.12 or 3.13" in done.stdout


def test_help_lists_every_documented_target():
    targets = re.findall(r"^([a-z-]+):.*## ", read("Makefile"), flags=re.MULTILINE)
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"run", "test", "setup", "lint", "train", "quick-train", "scorecard", "clean", "help"} <= set(targets)
    assert [line.split()[1] for line in done.stdout.splitlines()] == targets


def test_training_without_data_says_what_is_missing():
    done = subprocess.run(["make", "need-data"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "data/README.md" in done.stdout


# Container


class Instruction(NamedTuple):
    word: str
    rest: str


def dockerfile() -> list[Instruction]:
    """Instructions with continuation lines joined and comments left out."""
    kept = "\n".join(line for line in read("Dockerfile").splitlines() if not line.lstrip().startswith("#"))
    joined = kept.replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if line.strip()]
    return [Instruction(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def test_base_images_are_pinned_slim_and_supported():
    bases = [i.rest.split()[0] for i in dockerfile() if i.word == "FROM"]
    assert bases
    assert all(re.fullmatch(r"python:3\.1[123](\.\d+)?-slim-[a-z]+", base) for base in bases)


def test_image_follows_the_usual_rules():
    instructions = dockerfile()
    last_stage = instructions[max(i for i, step in enumerate(instructions) if step.word == "FROM") :]
    words = [step.word for step in last_stage]
    assert "ADD" not in [step.word for step in instructions]
    assert words.count("CMD") == words.count("HEALTHCHECK") == words.count("USER") == 1
    user = next(step.rest for step in last_stage if step.word == "USER")
    assert user not in ("root", "0")
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))
    for step in instructions:
        if step.word == "RUN" and "apt-get install" in step.rest:
            assert "--no-install-recommends" in step.rest
            assert "rm -rf /var/lib/apt/lists" in step.rest
        if step.word == "RUN" and "pip install" in step.rest:
            assert "--no-cache-dir" in step.rest
        assert "sudo" not in step.rest
        assert step.word != "WORKDIR" or step.rest.startswith("/")


def test_compose_runs_web_and_worker_from_one_image_without_privileges():
    services = {name: of for name, of in compose()["services"].items() if "profiles" not in of}
    assert set(services) == {"web", "worker"}  # what `docker compose up` starts
    for service in services.values():
        image, _, tag = service["image"].partition(":")
        assert (image, tag) == ("telltale", project_version())
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "instance:/app/instance" in service["volumes"]
    assert services["worker"]["command"] == ["python", "-m", "web_app", "worker"]
    assert services["web"]["environment"] == {
        "TELLTALE_SECURITY__HOSTS": "${TELLTALE_SECURITY__HOSTS:-localhost,127.0.0.1}",
        "TELLTALE_SECURITY__TRUSTED_PROXIES": "${TELLTALE_SECURITY__TRUSTED_PROXIES:-}",
    }
    assert services["web"]["ports"] == ["127.0.0.1:5000:5000"]
    assert services["web"]["healthcheck"]["test"][:3] == ["CMD", "python", "-c"]


def test_compose_for_many_machines_shares_nothing_but_database_broker_and_bucket():
    services = compose()["services"]
    many = {name for name, of in services.items() if of.get("profiles") == ["scale"]}
    started, waiting = set(), ["scale"]  # `docker compose --profile scale up scale`: it and all that it needs
    while waiting:
        started.add(name := waiting.pop())
        waiting += [each for each in services[name].get("depends_on", {}) if each not in started]
    assert started == many == {"many-web", "many-worker", "many-learner", "scale", "redis", "postgres"}
    assert [name for name in many if "ports" in services[name]] == ["scale"]
    assert "proxy_pass http://many-web:5000;" in compose()["configs"]["nginx"]["content"]
    for name in ("many-web", "many-worker", "many-learner"):
        service = services[name]
        assert service["image"] == f"telltale-scale:{project_version()}"
        assert service["build"]["args"] == {"REQUIREMENTS": "requirements-scale.txt"}
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        assert service["volumes"] == ["/app/instance"]
        given = {key: value for key, value in service["environment"].items() if key.startswith("TELLTALE_")}
        dummy = {key: re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: m[2] or "x", value) for key, value in given.items()}
        settings = load_settings(environ={**dummy, "TELLTALE_STORAGE__S3_URL": "https://s3.example.org/b"})
        assert settings.jobs.broker_url
        assert settings.storage.s3_url  # without, files = s3 refuses to start
        assert (settings.jobs.engine, settings.storage.files) == ("celery", "s3")
        command = services[name]["command"][2].partition("exec python -m web_app ")[2].split()
        if command[0] == "worker":
            assert read_roles(command[2])
    assert "exec docker-entrypoint.sh redis-server " in services["redis"]["command"][2]  # which leaves root's rights
    # what must be given for many machines is not asked of those who have one
    assert re.findall(r"\$\{\w+:?\?", read("docker-compose.yml").replace("$$", "")) == []


def compose():
    return yaml.safe_load(read("docker-compose.yml"))


def project_version() -> str:
    return re.search(r'^version = "(.+)"$', read("pyproject.toml"), flags=re.MULTILINE)[1]


# Configuration


def ini() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "config.ini", encoding="utf-8")
    return parser


def test_shipped_configuration_is_that_of_the_defaults():
    assert load_settings(environ={}) == Settings()


def test_shipped_configuration_holds_exactly_the_declared_keys():
    assert {(section, key) for section in ini().sections() for key in ini()[section]} == {(s, f.name) for s, f in KEYS}


def comments() -> dict[tuple[str, str], str]:
    """What config.ini says above each key, by section and key."""
    told: dict[tuple[str, str], str] = {}
    section, above = "", []
    for line in read("config.ini").splitlines():
        if line.startswith("# "):
            above.append(line[2:])
        elif heading := re.fullmatch(r"\[(\w+)\]", line):
            section, above = heading[1], []
        elif " =" in line:
            told[section, line.partition(" =")[0]] = " ".join(above)
            above = []
    return told


@pytest.mark.parametrize(("section", "field"), KEYS, ids=lambda value: getattr(value, "name", value))
def test_each_key_is_explained_with_unit_range_and_meaning(section, field):
    meta = field.metadata
    span = ", ".join(meta["choices"]) or ("" if meta["low"] is None else f"{meta['low']:.10g} to {meta['high']:.10g}")
    meaning, _, told = comments()[section, field.name].partition(" Range: ")
    assert told == (f"{span}." if span else "")
    assert re.fullmatch(r"[A-Z].{15,}\.", meaning), "a sentence says what it means"


# Rules for every source file

FORBIDDEN_MODULES = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pty", "commands"
}  # fmt: skip
FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile", "os.system", "os.popen",
    "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
    "torch.serialization.load", "torch.jit.load", "torch.package.PackageImporter", "torch.hub.load",
    "torch.hub.load_state_dict_from_url", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "pandas.read_pickle", "numpy.fromregex", "flask.render_template_string", "tempfile.mktemp",
}  # fmt: skip
IMPORTERS = {"__import__", "importlib.import_module", "import_module"}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (stem := dotted(node.value)):
        return f"{stem}.{node.attr}"
    return ""


def dangers(tree: ast.AST) -> Iterator[str]:
    """What a syntax tree does that can run code from data."""
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname: alias.name for alias in node.names if alias.asname}
            yield from (a.name for a in node.names if a.name.partition(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            if node.module.partition(".")[0] in FORBIDDEN_MODULES:
                yield node.module
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, dot, tail = dotted(node.func).partition(".")
            name = aliases.get(head, head) + dot + tail
            if name in FORBIDDEN_CALLS:
                yield name
            if name == "torch.load" and not any(
                k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords
            ):
                yield name
            if name in IMPORTERS and node.args and isinstance(node.args[0], ast.Constant):
                yield from {str(node.args[0].value).partition(".")[0]} & FORBIDDEN_MODULES
            if name == "getattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
                named = f"{dotted(node.args[0])}.{node.args[1].value}"
                yield from {named} & {*FORBIDDEN_CALLS, "torch.load"}
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "shell") and getattr(keyword.value, "value", None) is not False:
                    yield f"{name}({keyword.arg}=...)"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_code_from_data(path):
    assert list(dangers(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("import torch as t\nt.load('x')", ["torch.load"]),
        ("from torch import load as get\nget('x')", ["torch.load"]),
        ("torch.load('x', weights_only=False)", ["torch.load"]),
        ("torch.load('x', weights_only=flag)", ["torch.load"]),
        ("torch.load('x', weights_only=True)", []),
        ("getattr(torch, 'load')('x')", ["torch.load"]),
        ("__import__('pickle').loads(x)", ["pickle"]),
        ("import importlib\nimportlib.import_module('joblib.externals')", ["joblib"]),
        ("from subprocess import getoutput as run\nrun('x')", ["subprocess.getoutput"]),
        ("import yaml\nyaml.unsafe_load(x)\nyaml.safe_load(x)", ["yaml.unsafe_load"]),
        ("import builtins as b\nb.exec(x)", ["builtins.exec"]),
        ("eval('1')", ["eval"]),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", ["numpy.load(allow_pickle=...)"]),
        ("import subprocess\nsubprocess.run('x', shell=flag)", ["subprocess.run(shell=...)"]),
        ("model.eval()\nnetwork.load('x')\nnp.load('x', allow_pickle=False)", []),
    ],
)
def test_the_rule_itself_sees_what_it_should(code, found):
    assert list(dangers(ast.parse(code))) == found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_are_of_readable_size(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(text.splitlines()) <= 400
    assert [f.name for f in functions if f.end_lineno - f.lineno >= 90] == []
    assert not text.strip() or ast.get_docstring(tree), "a file says at its top where it stands"


def test_borders_between_the_rooms_are_kept():
    command = [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_the_server_knows_flask():
    others = [path for path in SOURCES if path.relative_to(ROOT).parts[0] != "web_app"]
    assert [path.name for path in others if imported_packages(path) & {"flask", "werkzeug", "web_app"}] == []
