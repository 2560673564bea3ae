"""The pages: every command that they show is understood, their Python runs, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from photos import PHOTO
from PIL import Image
from typer.testing import CliRunner

from canthus.cli import app

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SYNOPSIS = re.compile(r"[\[\]|]")  # `[--report]`, `true|detected`: the form of a command and not one to be typed


def blocks(page: Path, languages: str) -> list[str]:
    """The code blocks of a page in one of the languages, named as `sh|bash`."""
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def shell_lines() -> Iterator[tuple[Path, str]]:
    """(page, command) of all shell blocks; lines are joined where they go on, comments taken away."""
    for page in PAGES:
        for block in blocks(page, "sh|bash|bat"):
            for line in block.replace("\\\n", " ").splitlines():
                for command in re.sub(r"\s#.*", "", line).split("&&"):
                    if command.strip() and not command.strip().startswith("#"):
                        yield page, command.strip()


COMMANDS = sorted({(page.name, line) for page, line in shell_lines() if line.startswith("canthus ")})
TYPED = [line for _, line in COMMANDS if not SYNOPSIS.search(line)]


def parsed(line: str) -> dict[str, object]:
    """The options of a command, as the command line reads them. Raises where it would refuse."""
    verb, *words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    assert verb in group.commands, verb
    if verb == "data":
        group, verb, words = group.commands[verb], words[0], words[1:]
    return group.commands[verb].make_context(verb, words).params


def test_there_are_commands_of_every_verb():
    assert {line.split()[1] for line in TYPED} == set(typer.main.get_command(app).commands)


@pytest.mark.parametrize("line", sorted(set(TYPED)))
def test_a_command_of_the_pages_is_understood(line):
    options = parsed(line)
    if line.startswith("canthus train "):
        pytest.importorskip("torch")
        from canthus.training.recipe import Recipe

        if not options["listed"] and not str(options["recipe"]).isupper():  # RECIPE stands for one
            Recipe.read(options["recipe"], options["changes"] or (), faces=["folder"])
    if line.startswith("canthus synth"):
        pytest.importorskip("yaml")
        from canthus.synth.recipe import SynthRecipe

        SynthRecipe.read(None, **SynthRecipe.parse(options["change"] or []))


def test_a_wrong_option_or_verb_is_noticed():
    with pytest.raises(Exception, match="[Nn]o such option"):
        parsed("canthus align photo.jpg --colour")
    with pytest.raises(AssertionError):
        parsed("canthus aline photo.jpg")


def test_other_commands_of_the_pages_name_what_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page, line in shell_lines():
        if match := re.match(r"pip install .*\[([a-z,]+)\]", line):
            assert set(match[1].split(",")) <= set(project["optional-dependencies"]), (page, line)
        if match := re.match(r"make (\w+)", line):
            assert match[1] in targets, (page, line)
        if match := re.match(r"python ((?:benchmarks|tools|examples)/\S+)", line):
            assert (ROOT / match[1]).is_file(), (page, line)


@pytest.mark.parametrize("line", [line for line in sorted(set(TYPED)) if "examples/astronaut.jpg" in line])
def test_commands_on_the_example_photo_run(tmp_path, monkeypatch, line):
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / PHOTO.name).symlink_to(PHOTO)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0 and "1 face" in result.output
    assert (tmp_path / "out" / "astronaut.json").exists()


@pytest.mark.parametrize("page", [p for p in PAGES if p.name == "README.md" or p.parent.name in ("docs", "guide")],
                         ids=lambda page: page.stem)  # fmt: skip
def test_the_python_of_a_page_runs(tmp_path, monkeypatch, page):
    python = [b for b in blocks(page, "python") if ">>>" not in b and "HEAD_ASSETS" not in b and ": ..." not in b]
    if not python:
        pytest.skip("no Python on this page, or a test of its own runs it")
    if "synth" in "".join(python):
        pytest.importorskip("scipy")
    if "my-weights" in "".join(python):
        from canthus.weights import find

        (tmp_path / "my-weights").symlink_to(find("swift"))
    (tmp_path / "examples").mkdir()
    picture = Image.open(PHOTO)
    for name in ("photo.jpg", "examples/astronaut.jpg"):
        picture.save(tmp_path / name, quality=95)
    picture.save(tmp_path / "clip.gif", save_all=True, append_images=[picture])
    monkeypatch.chdir(tmp_path)
    exec("\n".join(python).replace("clip.mp4", "clip.gif"), {})


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"https?:|#|mailto:", target):
                assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_the_readme_is_short_and_its_picture_light():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
    assert (ROOT / "docs/images/tracking.webp").stat().st_size < 1.5e6


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs").with_suffix(""))
        assert name == "index" or f"\n{name}\n" in index, name


def test_the_citation_names_the_version_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {project['version']}\n" in citation and f"\nlicense: {project['license']}\n" in citation
