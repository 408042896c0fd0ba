"""Each key of the configuration refuses what it cannot take, and says which key, and what it takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from utils.config import RETIRED, Settings, keys_of, load_settings
from utils.errors import ConfigError

SECTIONS: dict[str, type[Any]] = get_type_hints(Settings)
KEYS = [
    (section, field.name, get_type_hints(cls)[field.name], field.metadata)
    for section, cls in SECTIONS.items()
    for field in keys_of(cls)
]
NUMBERS = [key for key in KEYS if key[2] in (int, float)]
CHOICES = [key for key in KEYS if key[3]["choices"]]


def named(keys: list[tuple[Any, ...]]) -> list[str]:
    return [f"{section}.{name}" for section, name, *_ in keys]


def read(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "own.ini"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environ)


def value_of(settings: Settings, section: str, key: str) -> Any:
    return getattr(getattr(settings, section), key)


def test_every_number_has_a_range_that_holds_its_default():
    for section, key, kind, meta in NUMBERS:
        assert meta["low"] <= value_of(Settings(), section, key) <= meta["high"]
        assert type(value_of(Settings(), section, key)) is kind
    assert all(value_of(Settings(), s, k) in meta["choices"] for s, k, _, meta in CHOICES)


@pytest.mark.parametrize(("section", "key", "kind", "meta"), NUMBERS, ids=named(NUMBERS))
def test_wrong_type_names_section_key_and_kind(tmp_path, section, key, kind, meta):
    wanted = "a whole number" if kind is int else "a number"
    for text in ("many", "", "1,5", "0x10", *(["1.5"] if kind is int else [])):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, f"[{section}]\n{key} = {text}\n")
        assert f"[{section}] {key} must be {wanted}" in caught.value.detail


@pytest.mark.parametrize(("section", "key", "kind", "meta"), NUMBERS, ids=named(NUMBERS))
def test_out_of_range_names_section_key_and_range(tmp_path, section, key, kind, meta):
    outside = [meta["low"] - 1, meta["high"] + 1, -(10**9), 10**9]
    texts = [str(kind(v)) for v in outside] + (["nan", "inf", "-inf"] if kind is float else [])
    for text in texts:
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, f"[{section}]\n{key} = {text}\n")
        assert f"[{section}] {key} must lie in {meta['low']:g}..{meta['high']:g}" in caught.value.detail


@pytest.mark.parametrize(("section", "key", "kind", "meta"), NUMBERS, ids=named(NUMBERS))
def test_both_ends_of_the_range_are_allowed(tmp_path, section, key, kind, meta):
    for end in (meta["low"], meta["high"]):
        assert value_of(read(tmp_path, f"[{section}]\n{key} = {kind(end)}\n"), section, key) == kind(end)


@pytest.mark.parametrize(("section", "key", "kind", "meta"), CHOICES, ids=named(CHOICES))
def test_choice_outside_the_list_names_the_list(tmp_path, section, key, kind, meta):
    for choice in meta["choices"]:
        assert value_of(read(tmp_path, f"[{section}]\n{key} = {choice}\n"), section, key) == choice
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"[{section}]\n{key} = other\n")
    assert f"[{section}] {key} must be one of {', '.join(meta['choices'])}" in caught.value.detail


@pytest.mark.parametrize(("section", "key", "kind", "meta"), KEYS, ids=named(KEYS))
def test_environment_overrides_file_and_is_checked_alike(tmp_path, section, key, kind, meta):
    words = ("cnn", "vit") if key == "experts" else ("file", "own")  # of keys that are free text, or words of a list
    text = str(meta["choices"][-1]) if meta["choices"] else words[1] if kind is str else str(kind(meta["high"]))
    least = meta["choices"][0] if meta["choices"] else words[0] if kind is str else meta["low"]
    low = f"[{section}]\n{key} = {least}\n"
    variable = f"TELLTALE_{section}__{key}".upper()
    assert value_of(read(tmp_path, low, **{variable: text}), section, key) == kind(text)
    if kind is not str or meta["choices"]:
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, low, **{variable: "no such value"})
        assert f"[{section}] {key}" in caught.value.detail


@pytest.mark.parametrize("section", SECTIONS)
def test_unknown_key_names_section_and_the_known_ones(tmp_path, section):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"[{section}]\nspeed = 1\n")
    assert f"[{section}] speed is unknown" in caught.value.detail
    assert all(f.name in caught.value.detail for f in keys_of(SECTIONS[section]))


@pytest.mark.parametrize(("section", "key"), sorted(RETIRED))
def test_a_retired_key_is_ignored_with_a_warning_that_says_what_to_do(tmp_path, caplog, section, key):
    with caplog.at_level("WARNING"):
        assert read(tmp_path, f"[{section}]\n{key} = on\n") == Settings()
    assert f"[{section}] {key} is no longer a setting and is ignored. {RETIRED[section, key]}" in caplog.text
    assert key not in {field.name for field in keys_of(SECTIONS[section])}


def test_a_variable_may_give_a_constant_but_nothing_that_is_gone(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        assert read(tmp_path, "", TELLTALE_JOBS__LEASE_S="7.5").jobs.lease_s == 7.5
        assert caplog.text == ""
        assert read(tmp_path, "", TELLTALE_PAGE__PREFIX="/x") == Settings()
    assert "[page] prefix is no longer a setting" in caplog.text


@pytest.mark.parametrize("section", ["servers", "DEFAULT", "Server", ""])
def test_unknown_section_is_refused(tmp_path, section):
    with pytest.raises(ConfigError):
        read(tmp_path, f"[{section}]\nport = 80\n")


@pytest.mark.parametrize("variable", ["TELLTALE_SERVER__SPEED", "TELLTALE_NONE__PORT", "TELLTALE_MEDIA__PORT"])
def test_misspelt_variable_is_refused(tmp_path, variable):
    with pytest.raises(ConfigError, match="unknown"):
        read(tmp_path, "", **{variable: "1"})


def test_other_variables_are_nobodys(tmp_path):
    assert read(tmp_path, "", TELLTALE_HOME="/x", OTHER_SERVER__PORT="1", PATH="/bin") == Settings()


@pytest.mark.parametrize(
    "text",
    ["port = 80\n", "[server\nport = 80\n", "[server]\nport\n", "[server]\nport = 1\nport = 2\n", "[jobs]\n[jobs]\n"],
)
def test_file_that_is_no_ini_is_refused_by_name(tmp_path, text):
    with pytest.raises(ConfigError, match=r"own\.ini cannot be read"):
        read(tmp_path, text)


@pytest.mark.parametrize(("section", "key", "kind", "meta"), KEYS, ids=named(KEYS))
def test_a_server_refuses_a_missing_key_by_section_key_and_range(tmp_path, section, key, kind, meta):
    whole = {s: {k: value_of(Settings(), s, k) for t, k, *_ in KEYS if t == s} for s in SECTIONS}
    del whole[section][key]
    text = "".join(f"[{s}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for s, of in whole.items())
    path = tmp_path / "own.ini"
    path.write_text(text, encoding="utf-8")
    if meta["later"]:
        assert load_settings(path, {}, complete=True) == Settings()
        return
    with pytest.raises(ConfigError) as caught:
        load_settings(path, {}, complete=True)
    said = caught.value.detail
    assert f"[{section}] {key} is missing in own.ini" in said
    assert "Missing too" not in said
    assert (
        ", ".join(meta["choices"]) if meta["choices"] else f"{meta['low']:g}" if kind is not str else "a text"
    ) in said
    given = {f"TELLTALE_{section}__{key}".upper(): str(value_of(Settings(), section, key))}
    assert load_settings(path, given, complete=True) == load_settings(path, {}) == Settings()


def test_the_file_that_ships_is_complete_and_an_empty_one_names_every_key(tmp_path):
    assert load_settings(None, {}, complete=True) == load_settings(None, {})
    (tmp_path / "own.ini").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "own.ini", {}, complete=True)
    assert all(f"[{section}] {key}" in caught.value.detail for section, key, _, meta in KEYS if not meta["later"])


def test_unreadable_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"There is no configuration file .*none\.ini"):
        load_settings(tmp_path / "none.ini", {})
    (tmp_path / "latin.ini").write_bytes(b"[storage]\ninstance_dir = caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.ini cannot be read"):
        load_settings(tmp_path / "latin.ini", {})

    def refuse(self: Path, **keys: Any) -> str:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match="not yours"):
        load_settings(tmp_path / "latin.ini", {})


def test_signs_that_ini_files_often_treat_specially_are_plain(tmp_path):
    text = "\ufeff# a comment\n[storage]\ndatabase_url = postgresql://u:p%40x@h/db?a=${b}\ninstance_dir =  here  \n"
    storage = read(tmp_path, text).storage
    assert storage.database_url == "postgresql://u:p%40x@h/db?a=${b}"
    assert storage.instance_dir == "here"


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().server.port = 1
