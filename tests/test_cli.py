"""The command line: what each verb does, and that mistakes are sentences and exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import layouts_maker
import numpy as np
import pytest
import typer
from photos import PHOTO, aligner
from PIL import Image
from typer.testing import CliRunner

import canthus
from canthus.__main__ import main
from canthus.cli import app
from canthus.commands import terminal
from canthus.errors import CanthusError, amount, pip_install
from canthus.io.outputs import read_json
from canthus.weights import find

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VERBS = (
    "align", "track", "models", "evaluate", "reproduce", "synth", "train", "train-detector", "export", "serve", "data",
)  # fmt: skip


def run(*arguments: object, code: int = 0) -> str:
    """What the command line prints, its spaces and line breaks made one space; `code` is how it must exit."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    text = " ".join(result.output.split())
    assert result.exit_code == code, text
    assert result.exception is None or isinstance(result.exception, SystemExit)  # no traceback
    return text


# All verbs


def test_version():
    assert run("--version") == canthus.__version__


def test_the_verbs():
    command = typer.main.get_command(app)
    assert sorted(command.commands) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb):
    text = run(verb, "--help")
    assert verb in text and "--help" in text and text == run(verb, "-h")


def test_every_option_and_verb_is_explained_by_a_whole_sentence():
    commands = typer.main.get_command(app).commands
    for verb in VERBS:
        single = getattr(commands[verb], "commands", {verb: commands[verb]})  # of a group of verbs
        for parameter in (parameter for command in single.values() for parameter in command.params):
            assert parameter.help[0].isupper() and parameter.help[-1] == ".", (verb, parameter.name)
    text = run("-h")
    for verb in VERBS:  # the list of verbs cuts nothing off
        assert " ".join(commands[verb].help.split("\n\n")[0].split()) in text


def test_no_verb_shows_help():
    result = CliRunner().invoke(app, [])
    assert all(verb in result.output for verb in VERBS)


def test_shell_completion_offers_verbs_and_names_of_weights():
    def complete(line: str) -> str:
        words = {"_CANTHUS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return CliRunner().invoke(app, [], prog_name="canthus", env=words).output

    assert complete("canthus al").split() == ["align"]
    assert {"swift", "swift-int8"} <= set(complete("canthus align --weights sw").split())


def test_quiet_prints_nothing_but_errors(tmp_path):
    assert run("align", PHOTO, "--no-overlay", "--out", tmp_path, "--quiet") == ""
    text = run("align", PHOTO, tmp_path / "no.jpg", "-q", "--no-overlay", "--out", tmp_path, code=1)
    assert text.startswith("failed: ")


def test_the_log_of_the_package_goes_to_stderr_by_its_level(monkeypatch):
    from canthus.commands import models

    def noisy(given):
        log = logging.getLogger("canthus.part")
        log.debug("a detail")
        log.warning("a warning")
        return []

    monkeypatch.setattr(models, "find_models", noisy)
    assert "warning: a warning" in run("models") and "a detail" not in run("models")
    assert "a detail" in run("models", "--verbose")
    assert "a warning" not in run("models", "-q")


def test_no_line_is_wrapped_in_a_pipe(tmp_path):
    photo = tmp_path / ("x" * 150 + ".jpg")
    result = CliRunner().invoke(app, ["align", str(photo), "--out", str(tmp_path)])
    assert any(str(photo) in line for line in result.output.splitlines() if line.startswith("failed: "))


def test_progress_in_a_pipe_is_a_plain_line_now_and_then(monkeypatch, capsys):
    times = iter([0.0, 4.0, 11.0, 11.0, 12.0])  # begin; 1st update; 2nd, shown and its time kept; 3rd
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(times))
    with terminal.progress("track") as update:
        update(1, 30, "clip")
        update(2, 30, "clip")
        update(3)
    assert capsys.readouterr().err.splitlines() == ["track: 2/30 clip", "track: 3"]


def test_an_unknown_verb_or_option():
    run("aline", code=2)
    run("align", PHOTO, "--colour", code=2)
    run("align", code=2)  # no photo named


def test_one_thing_is_named_in_the_singular():
    assert [amount(count, "face") for count in (0, 1, 2)] == ["0 faces", "1 face", "2 faces"]
    assert [amount(count, "loss", "losses") for count in (1, 3)] == ["1 loss", "3 losses"]


def test_the_command_and_the_module_are_the_same():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    script = EntryPoint("canthus", project["scripts"]["canthus"], "console_scripts")
    assert script.load() is main
    out = subprocess.run([sys.executable, "-m", "canthus", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == canthus.__version__


# align


BAD_NAME = os.fsdecode(b"b\xff.jpg")  # bytes that are no text, as old archives hold


def with_a_bad_name(folder: Path) -> None:
    """A photo with such a name, and a file that is none."""
    folder.mkdir()
    try:
        shutil.copy(PHOTO, folder / BAD_NAME)
    except OSError:
        pytest.skip("a file system of text alone")
    (folder / os.fsdecode(b"c\xfe.jpg")).write_bytes(b"no photo")


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_tables_escape_file_names_that_are_no_text(tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    with_a_bad_name(tmp_path / "in")
    text = run("align", tmp_path / "in", "--format", kind, "--out", tmp_path / "out", code=1)
    assert "1 file, 1 face, 1 failure" in text
    (image,) = canthus.read_faces(tmp_path / "out")
    assert image.image.endswith(r"b\udcff.jpg") and len(image.faces) == 1
    if kind == "csv":
        failures = (tmp_path / "out" / "_failures-00000.csv").read_text("utf-8")
        assert failures.count(r"c\udcfe.jpg") == 2  # as its name, and in the reason


def test_json_escapes_file_names_that_are_no_text(tmp_path):
    with_a_bad_name(tmp_path / "in")
    run("align", tmp_path / "in", "--out", tmp_path / "out", code=1)
    (path,) = (tmp_path / "out" / "in").glob("*.json")
    image = json.loads(path.read_bytes())["image"]
    assert image["name"] == r"b\udcff.jpg" and image["path"].endswith(image["name"])
    text = run("align", tmp_path / "in", "--out", tmp_path / "out", "--resume", code=1)
    assert "0 files, 0 faces, 1 failure, 1 skipped" in text


def test_align_writes_json_overlay_and_mesh(tmp_path):
    text = run("align", PHOTO, "--mesh", "obj", "--out", tmp_path, "--threads", 1)
    assert {p.name for p in tmp_path.iterdir()} == {"astronaut.json", "astronaut.overlay.png", "astronaut.obj"}
    np.testing.assert_allclose(read_json(tmp_path / "astronaut.json").xyz, aligner().predict(PHOTO).xyz, atol=2e-3)
    assert "1 file, 1 face, 0 failures" in text
    assert f"results in {tmp_path.resolve()}" in text
    vertices = re.findall(r"^v .*", (tmp_path / "astronaut.obj").read_text(), re.M)
    assert len(vertices) >= len(canthus.MorphableModel.default().vertices()[0])


def test_align_writes_what_is_asked_for(tmp_path):
    out = tmp_path / "new" / "folder"
    run("align", PHOTO, "--no-overlay", "--pts", "--csv", "--out", out)
    assert {p.name for p in out.iterdir()} == {f"astronaut.{e}" for e in ("json", "pts", "csv")}


def test_align_writes_to_out_if_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("align", PHOTO)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"astronaut.json", "astronaut.overlay.png"}


def test_align_writes_tables_and_goes_on(tmp_path):
    pytest.importorskip("pyarrow")
    given = "align", PHOTO, PHOTO, "--format", "parquet", "--part", 1, "--threads", 1, "--out", tmp_path / "out"
    assert "1 file, 1 face, 0 failures, " in run(*given, "--shard", "1/2")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"part-00001.parquet", "_part-00001.json"}
    assert "1 file, 1 face, 0 failures, 1 skipped" in run(*given, "--resume", "--memory", 500)
    assert "want --resume" in run(*given, code=2)
    assert len([*canthus.read_faces(tmp_path / "out")]) == 2


def test_what_goes_with_json_only_and_shards_that_are_none_are_refused(tmp_path):
    given = "align", PHOTO, "--format", "csv", "--out", tmp_path
    for option in ("--overlay", "--pts", "--csv", "--mesh=obj", "--expressions", "--scheme=wflw98"):
        assert "go with --format json only" in run(*given, option, code=2)
    for option in ("--shard=0/2", "--part=3", "--ray=auto"):
        assert "go with --format csv or parquet only" in run("align", PHOTO, "--out", tmp_path, option, code=2)
    assert "--columns goes with --table only" in run("track", PHOTO, "--columns", "openface", code=2)
    assert "want I/N" in run(*given, "--shard", "2/2", code=2)
    assert "want --format parquet or csv" in run("align", PHOTO, "--out", "memory://out", code=2)
    assert list(tmp_path.iterdir()) == []


def test_align_resumes(tmp_path):
    run("align", PHOTO, "--out", tmp_path)
    assert "0 files, 0 faces, 0 failures, 1 skipped" in run("align", PHOTO, "--out", tmp_path, "--resume")
    assert "1 file, 1 face, 0 failures, " in run("align", PHOTO, "--out", tmp_path)


def test_verbose_tells_each_file(tmp_path):
    given = PHOTO, "--out", tmp_path, "--threads", 1, "--verbose"
    text = run("align", *given)
    assert "on cpu: 1 lane of 1 thread" in text and f"{PHOTO}: 1 face" in text
    assert f"{PHOTO}: done before" in run("align", *given, "--resume")
    assert f"{PHOTO}: frame by frame, into {tmp_path}" in run("track", *given)
    assert f"{PHOTO}: done before" in run("track", *given, "--resume")


def test_align_gives_other_landmark_schemes(tmp_path):
    given = "align", PHOTO, "--pts", "--out", tmp_path, "--scheme"
    run(*given, "wflw98")
    faces = read_json(tmp_path / "astronaut.json")
    np.testing.assert_allclose(faces.xyz, aligner().predict(PHOTO).converted("wflw98").xyz, atol=5e-3)
    assert (tmp_path / "astronaut.pts").read_text().startswith("version: 1\nn_points:  98\n")
    assert "1 skipped" in run(*given, "wflw98", "--resume") and "0 skipped" in run(*given, "lapa106", "--resume")
    assert "2 points cannot be told" in run(*given, "cofw29", code=2)
    assert "got the landmark scheme 'wflw'" in run(*given, "wflw", code=2)


def test_a_failure_is_named_and_the_rest_done(tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    text = run("align", PHOTO, tmp_path / "bad.png", "--out", tmp_path / "out", code=1)
    assert f"failed: {tmp_path / 'bad.png'}: got the file" in text
    assert "1 file, 1 face, 1 failure" in text


def test_any_failure_is_exit_1_unless_failures_are_allowed_and_some_photo_is_done(tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    both = (PHOTO, tmp_path / "bad.png", "--no-overlay", "--out", tmp_path / "out")
    for resume in ((), ("--resume",)):  # the second time only the bad one is left, and the exit code is the same
        run("align", *both, *resume, code=1)
        run("align", *both, *resume, "--allow-failures", code=0)
    for allowed in ((), ("--allow-failures",)):
        text = run("align", tmp_path / "nothing.jpg", "--out", tmp_path / "out", *allowed, code=1)
        assert "failed: " in text and "0 files, 0 faces, 1 failure" in text


def test_an_output_folder_that_cannot_be_made_is_exit_2(tmp_path):
    (tmp_path / "file").write_text("")
    for verb, given in (("align", PHOTO), ("track", PHOTO), ("evaluate", "300w")):
        more = (tmp_path,) if verb == "evaluate" else ()
        assert "file' is no folder" in run(verb, given, *more, "--out", tmp_path / "file" / "out", code=2)


def test_a_data_set_that_is_not_there_is_exit_2(tmp_path):
    assert f"there is no '{tmp_path / 'set'}'" in run("evaluate", "300w", tmp_path / "set", code=2)


def test_what_a_folder_holds_besides_photos_is_counted(tmp_path):
    shutil.copy(PHOTO, tmp_path)
    for name in ("a.txt", "b.txt", "c.mp4", "._astronaut.jpg"):  # the last one as macOS leaves them
        (tmp_path / name).write_text("")
    text = run("align", tmp_path, "--no-overlay", "--out", tmp_path / "out")
    assert "1 file, 1 face, 0 failures" in text and "passed over: 2 .txt, 1 ._*, 1 .mp4" in text


@pytest.mark.parametrize("verb", ["align", "track"])
@pytest.mark.parametrize(("out", "message"), [("s3://bucket/x", "got the address 's3://bucket/x'"), ("", "empty name")])
def test_output_folders_that_cannot_be_are_refused(tmp_path, monkeypatch, verb, out, message):
    monkeypatch.chdir(tmp_path)
    assert message in run(verb, PHOTO, "--out", out, code=2)
    assert not list(tmp_path.iterdir())


def test_an_empty_input_is_refused():
    assert run("align", "", code=2) == "canthus: got an empty path, want a photo, a folder or a pattern"


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not take")
def test_names_that_no_terminal_can_show_are_escaped(tmp_path):
    name = b"a\xff\x1b[31m\nb.png"
    with open(os.fsencode(tmp_path) + b"/" + name, "wb"):
        pass
    result = subprocess.run(
        [sys.executable, "-m", "canthus", "align", tmp_path, "--out", tmp_path], capture_output=True, check=False
    )
    (line,) = [line for line in result.stderr.splitlines() if line.startswith(b"failed: ")]
    assert rb"a\udcff\x1b[31m\nb.png: got the empty file" in line and result.returncode == 1
    assert b"results in" not in result.stdout  # there are none


def test_unknown_weights_are_one_sentence_and_exit_2(tmp_path):
    text = run("align", PHOTO, "--weights", "swfit", "--out", tmp_path / "out", code=2)
    assert text.startswith("canthus: no weights 'swfit': did you mean 'swift'?")
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_one_sentence_and_exit_2(tmp_path):
    assert run("align", tmp_path, code=2).startswith("canthus: no photo in")


@pytest.mark.parametrize("kind", ["stl", "OBJ", ""])
def test_other_meshes_are_refused(tmp_path, kind):
    assert "is not one of 'obj', 'ply', 'glb'" in run("align", PHOTO, "--mesh", kind, "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_out_of_range_are_refused():
    run("align", PHOTO, "--threads", 0, code=2)
    run("align", PHOTO, "--threads", 10**6, code=2)
    for focal in ("0", "nan", "inf"):
        run("track", PHOTO, "--focal", focal, code=2)


@pytest.mark.parametrize("name", ["[red]", "a [b", "[x", "[/x]"])
def test_brackets_in_names_are_plain_text(tmp_path, name):
    # '[/x]' is a folder '[' and a file 'x]'; Rich would take these for its markup
    out = tmp_path / name
    assert f"results in {out.resolve()}" in run("align", PHOTO, "--no-overlay", "--out", out)
    text = run("align", f"{out}.jpg", "--out", tmp_path / "other", code=2)  # it may be a pattern, of no file
    assert f"{name}.jpg'".replace(" ", "") in text.replace(" ", "")
    bad = tmp_path / f"{name}.png"
    bad.parent.mkdir(exist_ok=True)
    bad.write_text("no picture")
    text = run("align", bad, "--out", tmp_path / "other", code=1)
    assert f"{name}.png".replace(" ", "") in text.replace(" ", "")


# The other verbs


def test_models_prints_a_table_of_at_most_100_columns(tmp_path):
    output = CliRunner().invoke(app, ["models", "swift", str(weights_with(tmp_path, licence="word " * 20))]).output
    assert max(map(len, output.splitlines())) <= 100
    line = next(line for line in output.splitlines() if "(default)" in line)
    card = canthus.load().card
    assert line.split()[:5] == ["swift", "(default)", card.version, card.licence, "yes"]
    size = (find("swift") / "model.onnx").stat().st_size
    assert f"{size / 1e6:.1f}" in line
    assert f"{card.measured[0]['mean of bins']:.2f}" in line  # true boxes, AFLW2000-3D


def test_models_as_json_holds_the_whole_cards():
    first, *_ = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    card = canthus.load("swift").card
    assert (first["name"], first["training_data"], first["measured"]) == ("swift", card.training_data, card.measured)


def weights_with(folder: Path, **values: object) -> Path:
    """A copy of the default weights with other values on the card."""
    copy = folder / "mine"
    shutil.copytree(find("swift"), copy)
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps(card | values))
    return copy


@pytest.mark.parametrize(
    "values", [{"licence": "MIT\x1b[2J"}, {"commercial_use": "no"}, {"files": {"../../secret": "0" * 64}}]
)
def test_models_refuses_cards_that_would_mislead(tmp_path, values):
    text = run("models", weights_with(tmp_path, **values), code=2)
    assert text.startswith("canthus: the card") and text.isprintable()


def test_models_names_a_listed_file_that_is_missing(tmp_path):
    mine = weights_with(tmp_path)
    (mine / "model.onnx").unlink()
    assert "lists cannot be read: No such file" in run("models", mine, code=2)


def test_models_takes_names_folders_of_weights_and_folders_of_several(tmp_path):
    mine = weights_with(tmp_path, licence="research", commercial_use=False)
    for given in (mine, tmp_path):
        assert f"mine {aligner().card.version} research no" in run("models", given)
    assert "(default)" not in run("models", mine) and "(default)" in run("models", "swift", mine)
    (tmp_path / "empty").mkdir()
    assert "no 'card.json' in any folder inside" in run("models", tmp_path / "empty", code=2)
    assert "no weights 'swfit'" in run("models", "swfit", code=2)


def test_evaluate_survives_a_file_that_crashes_scipy(tmp_path):
    # the bits that make scipy.io.loadmat end the process: the type of the first element of a variable
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "a.mat", {"pt3d_68": np.ones((3, 68)), "Pose_Para": np.zeros((1, 7))})
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    data = bytearray((tmp_path / "a.mat").read_bytes())
    data[137] ^= 0x9F
    (tmp_path / "a.mat").write_bytes(data)
    text = run("evaluate", "aflw2000", tmp_path, "--out", tmp_path / "out", code=2)
    assert re.search(r"^canthus: '.*a\.mat' cannot be read: a variable begins with something else", text)


def test_evaluate_of_nothing_is_one_sentence_and_exit_2(tmp_path):
    pytest.importorskip("scipy")
    assert "canthus: no .mat" in run("evaluate", "aflw2000", tmp_path, "--out", tmp_path / "out", code=2)
    missing = tmp_path / "nowhere"
    assert f"there is no '{missing}'" in run("evaluate", "aflw2000", missing, "--out", tmp_path / "out", code=2)
    assert "canthus: no protocol 'aflw'" in run("evaluate", "aflw", tmp_path, code=2)
    assert "is not one of 'true', 'own', 'detected'" in run("evaluate", "300w", tmp_path, "--boxes", "given", code=2)


def test_evaluate_keeps_predictions_whose_scoring_fails(tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    import layouts_maker

    def fails(*_):
        raise CanthusError("no scores today")

    monkeypatch.setattr("canthus.evaluation.evaluate.evaluate", fails)
    data = layouts_maker.w300(tmp_path / "300w")
    text = run("evaluate", "300w", data, "--threads", 1, "--out", tmp_path / "out", code=2)
    assert "no scores today" in text and [p.name for p in (tmp_path / "out").iterdir()] == ["predictions.npz"]


def test_evaluate_tells_at_once_that_a_package_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    import layouts_maker

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setattr("canthus.evaluation.evaluate.predict", None)  # is not reached
    data = layouts_maker.w300(tmp_path / "300w")
    assert "'pyarrow' is not installed" in run(
        "evaluate", "300w", data, "--format", "parquet", "--out", tmp_path / "o", code=2
    )


def test_limits_of_the_service_end_somewhere():
    assert "a finite number is wanted" in run("serve", "--max-megabytes", "inf", code=2)
    assert "greater than or equal to 0.001" in run("serve", "--max-megabytes", "nan", code=2)


def test_evaluate_prints_tables_and_writes_files_that_can_be_scored_again(tmp_path, monkeypatch):
    pytest.importorskip("scipy")
    import layouts_maker

    monkeypatch.setattr(canthus.cli.console, "width", 200)
    data = layouts_maker.w300(tmp_path / "300w")
    text = run("evaluate", "300w", data, "--boxes", "jittered", "--threads", 1, "--out", tmp_path / "out")
    assert f"300-W, 68 points: {canthus.load().card.title}, 3 faces, 0 not found; inter-ocular " in text
    assert "challenge" not in text and f"results in {(tmp_path / 'out').resolve()}" in text
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["faces"] == 3 and written["system"] == canthus.load().card.title
    answers = tmp_path / "out" / "predictions.npz"
    text = run("evaluate", "300w", data, "--predictions", answers, "--report", "--all", "--out", tmp_path / "again")
    assert "inter-pupil" in text and "challenge" in text
    again = json.loads((tmp_path / "again" / "scores.json").read_text())
    for one, other in zip(again["tables"], written["tables"], strict=True):
        for name in other["rows"]:
            assert one["rows"][name] == pytest.approx(other["rows"][name], abs=2e-3)
    assert {"report.html", "report.json", "ced.png"} <= {p.name for p in (tmp_path / "again").iterdir()}
    assert "canthus: '" in run("evaluate", "300w", data, "--predictions", tmp_path / "none.npz", code=2)


def test_train_without_a_recipe_is_one_sentence_and_exit_2(tmp_path):
    pytest.importorskip("torch")
    for text in (None, "speed: 3\n", "- a list\n", "{"):
        recipe = tmp_path / "recipe.yaml"
        if text is not None:
            recipe.write_text(text)
        assert run("train", recipe, "--out", tmp_path / "run", code=2).startswith("canthus: ")
    assert not (tmp_path / "run").exists()


SMALL = """
config: {size: 32, widths: [8, 16, 24, 32], depths: [1, 1, 1, 1], features: 16, places: 4, details: false}
steps: 4
batch: 4
save_every: 2
"""


def test_train_from_a_recipe_and_on_with_the_same_one_only(tmp_path, made_shards):
    pytest.importorskip("torch")
    recipe, out = tmp_path / "small.yaml", tmp_path / "run"
    recipe.write_text(f"faces: ['{made_shards}']\n{SMALL}")
    text = run("train", recipe, "--out", out, "--set", "warmup_steps=1", "--set", "augment.scale=0.2")
    assert text.endswith(f"weights in {(out / 'weights').resolve()}")
    assert re.search(r"4/4 .*likelihood \d+ images/s loss \d", text)
    written = json.loads((out / "recipe.json").read_text())
    assert written["warmup_steps"] == 1 and written["augment"] == {"scale": 0.2}
    assert {p.name for p in (out / "weights").iterdir()} == {"card.json", "config.json", "model.safetensors"}
    again = run("train", recipe, "--out", out, "--set", "warmup_steps=1", code=2)
    assert "`augment.scale` 0.2, now not given" in again


def test_recipes_are_listed_without_torch():
    code = "import sys; sys.modules['torch'] = None; from canthus.cli import app; app(['train', '--list'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "jvcr-paper" in done.stdout and "swift" in done.stdout


def test_a_recipe_that_is_not_there_is_named():
    pytest.importorskip("torch")
    assert "there is no recipe 'jvcr-papr', neither a file nor a name ('jvcr-paper'?)" in run(
        "train", "jvcr-papr", code=2
    )
    assert "got no recipe" in run("train", code=2)
    assert "there is no folder 'nowhere'" in run("train", "swift", "--faces", "nowhere", code=2)


def test_train_on_a_data_set_says_which_terms_are_off(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("scipy")
    recipe = tmp_path / "small.yaml"
    recipe.write_text(SMALL.replace("steps: 4", "steps: 2"))
    data, out = layouts_maker.w300(tmp_path / "300w"), tmp_path / "run"
    text = run("train", recipe, "--faces", data, "--set", "warmup_steps=1", "--out", out, "--verbose")
    assert f"{data}: 300-W, training part, 1 face, 68 of 68 points, no depth, no rotation" in text
    assert "warning: no face has a rotation: rotation off" in text
    assert "warning: no face has depth: distance in the image plane alone" in text
    assert (out / "weights" / "card.json").exists()


def test_data_check_names_counts_and_draws(tmp_path):
    data = layouts_maker.pts_pairs(tmp_path / "mine")
    text = run("data", "check", data, "--out", tmp_path / "out")
    assert "pictures with .pts: 3 pictures, 3 faces, 0 faults" in text and "3 in ibug68; 68 of our 68 points" in text
    assert Image.open(tmp_path / "out" / "sheet.png").size == (3 * 128, 128)
    (data / "0.png").write_bytes((data / "0.png").read_bytes()[:60])
    (data / "1.pts").write_text("nonsense")
    text = run("data", "check", data, "--out", tmp_path / "out", code=1)
    assert "1 picture, 1 face, 2 faults" in text and "wrong: '" in text and "0.png" in text and "1.pts" in text
    assert "no layout that is known" in run("data", "check", tmp_path / "out", code=2)


def test_export_of_no_training_is_one_sentence_and_exit_2(tmp_path):
    pytest.importorskip("torch")
    assert run("export", tmp_path, "--out", tmp_path / "out", code=2).startswith("canthus: no 'card.json'")
    assert not Path(tmp_path / "out").exists()


def test_synth_without_assets_is_one_sentence_and_exit_2(tmp_path):
    pytest.importorskip("moderngl")
    pytest.importorskip("OpenEXR")
    pytest.importorskip("scipy")
    assert "canthus: " in run("synth", "--assets", tmp_path / "none", "--out", tmp_path / "out", "--workers", 1, code=2)


def test_a_verb_whose_extra_is_missing_says_which(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "canthus.training.export", None)
    monkeypatch.delattr(canthus, "export", raising=False)

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "torch":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    for name in [n for n in sys.modules if n == "torch" or n == "canthus.training.export"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    text = run("export", tmp_path, code=2)
    assert text == f"canthus: 'torch' is not installed; to get it, run: {pip_install('train')}"


@pytest.mark.parametrize(
    ("installed_from", "command"),
    [
        (None, "pip install 'canthus[synth]'"),
        ({"url": "file:///x/canthus-1-py3-none-any.whl", "archive_info": {}}, "pip install 'canthus[synth]'"),
        ({"url": "file:///no%20more/canthus", "dir_info": {}}, "pip install 'canthus[synth]'"),
        ({"url": Path.cwd().as_uri(), "dir_info": {}}, "pip install '.[synth]'"),
        ({"url": Path.cwd().as_uri(), "dir_info": {"editable": True}}, "pip install -e '.[synth]'"),
    ],
)
def test_the_command_for_an_extra_fits_how_canthus_was_installed(monkeypatch, installed_from, command):
    installed(monkeypatch, installed_from)
    assert pip_install("synth") == command


@pytest.mark.parametrize(("how", "option"), [({}, ""), ({"editable": True}, "-e ")])
def test_the_command_for_an_extra_names_the_folder_of_the_source(tmp_path, monkeypatch, how, option):
    source = tmp_path / "a b"
    source.mkdir()
    installed(monkeypatch, {"url": source.as_uri(), "dir_info": how})
    assert pip_install("synth") == f"pip install {option}'{source}[synth]'"


def installed(monkeypatch, source) -> None:
    """Let the package be installed from a source as pip notes it."""

    class Installed:
        @staticmethod
        def read_text(name):
            assert name == "direct_url.json"
            return source and json.dumps(source)

    monkeypatch.setattr("canthus.errors.distribution", lambda name: Installed)


def test_what_align_writes_is_described_by_the_schema(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    run("align", PHOTO, "--out", tmp_path)
    schema = json.loads((Path(canthus.__file__).parent / "face" / "faces.schema.json").read_text())
    jsonschema.validate(json.loads((tmp_path / "astronaut.json").read_text()), schema)
