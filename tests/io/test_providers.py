"""What ONNX Runtime runs networks on: the names, what is told where one is missing, and what `auto` takes."""

from __future__ import annotations

import pickle
import re
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from photos import PHOTO, aligner
from typer.testing import CliRunner

import canthus
from canthus.cli import app
from canthus.errors import CanthusError, WeightsError, pip_install
from canthus.inference.detect import PyramidDetector
from canthus.io import providers
from canthus.io.providers import PROVIDERS, available, check_provider
from canthus.io.session import MODEL_FILE, Session, open_session
from canthus.weights import find

CPU, CUDA, DML = (PROVIDERS[name][0] for name in ("cpu", "cuda", "directml"))


class FakeRuntime:
    """A module onnxruntime whose package has `names`, of which those in `works` do on this machine."""

    def __init__(self, names, works=(CPU,), refuses=()):
        self.names, self.works, self.refuses, self.asked, self.options = names, works, refuses, [], []
        self.inside, self.most = 0, 0

    def get_available_providers(self):
        return self.names

    def SessionOptions(self):
        return SimpleNamespace(add_session_config_entry=lambda key, value: None)

    def InferenceSession(self, path, options, providers, enable_fallback):
        assert enable_fallback == 0
        self.asked.append(providers)
        self.options.append(options)
        if set(providers) & set(self.refuses):
            raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")
        used = [name for name in providers if name in self.works]

        def run(outputs, given):
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.02)
            self.inside -= 1
            return ["answer"]

        return SimpleNamespace(get_providers=lambda: used, run=run)


@pytest.fixture
def fake(monkeypatch):
    def put(*names, **more):
        module = FakeRuntime(list(names), **more)
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        return module

    return put


def test_the_cpu_is_there_and_gives_the_same_faces_whether_it_is_named_or_found():
    assert "cpu" in available()
    wanted = aligner().predict(PHOTO)
    for provider in ("cpu", "auto"):
        loaded = canthus.load(threads=1, provider=provider)
        assert loaded.provider == loaded.detector.session.provider == provider
        np.testing.assert_array_equal(loaded.predict(PHOTO).xyz, wanted.xyz)


@pytest.mark.parametrize("provider", ["CPU", "tpu", "", None, 3, ["cpu"], "CPUExecutionProvider"])
def test_another_name_is_refused(provider):
    with pytest.raises(CanthusError, match="want one of cpu, cuda, coreml, directml, openvino, auto"):
        canthus.load(provider=provider)


@pytest.mark.parametrize("provider", ["cuda", "coreml", "directml", "openvino"])
def test_a_provider_that_the_installed_runtime_has_not_is_told_with_the_package_that_has(monkeypatch, fake, provider):
    fake(CPU, "AzureExecutionProvider")
    monkeypatch.setattr(providers, "_installed", lambda: ["onnxruntime"])
    package = PROVIDERS[provider][1]
    told = f"got the provider '{provider}', but onnxruntime has cpu only; want {package} alone: "
    told += f"pip uninstall onnxruntime, then pip install {package.split()[0]}"
    with pytest.raises(CanthusError, match=re.escape(told)):
        canthus.load(provider=provider)


@pytest.mark.parametrize("verb", ["align", "track", "serve", "evaluate 300w"])
def test_commands_tell_it_before_they_do_anything(fake, tmp_path, monkeypatch, verb):
    fake(CPU)
    monkeypatch.chdir(tmp_path)
    words = [] if verb == "serve" else [str(PHOTO.parent)]
    result = CliRunner().invoke(app, [*verb.split(), *words, "--provider", "cuda"])
    assert result.exit_code == 2 and "got the provider 'cuda'" in result.output and "onnxruntime-gpu" in result.output
    assert not list(tmp_path.iterdir())


def test_two_packages_over_each_other_are_told(monkeypatch, fake):
    fake(CPU)
    monkeypatch.setattr(providers, "_installed", lambda: ["onnxruntime", "onnxruntime-gpu"])
    told = "onnxruntime and onnxruntime-gpu are installed over each other; want onnxruntime-gpu alone: "
    with pytest.raises(CanthusError, match=told + "pip uninstall onnxruntime onnxruntime-gpu, then"):
        check_provider("cuda")


def test_without_any_onnx_runtime_the_sentence_tells_both_commands(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # so that it cannot be imported
    with pytest.raises(CanthusError, match=re.escape(pip_install("cpu")) + ".*" + re.escape(pip_install("gpu"))):
        canthus.load()
    assert "swift" in canthus.weights.shipped()  # what needs no network works


def test_a_provider_runs_first_and_the_cpu_does_the_rest(fake, tmp_path):
    module = fake(CUDA, CPU, works=(CUDA, CPU))
    assert open_session(tmp_path / "x.onnx", provider="cuda").get_providers() == [CUDA, CPU]
    assert open_session(tmp_path / "x.onnx").get_providers() == [CPU]
    assert module.asked == [[CUDA, CPU], [CPU]]


def test_a_provider_without_its_processor_or_driver_is_one_sentence(fake, tmp_path):
    fake(CUDA, CPU)  # ONNX Runtime then goes on with the CPU and does not say so
    with pytest.raises(CanthusError, match="'cuda', which is installed but does not work on this machine"):
        open_session(tmp_path / "x.onnx", provider="cuda")
    fake(CUDA, CPU, refuses=(CUDA,))
    with pytest.raises(WeightsError, match="no CUDA-capable device"):
        open_session(tmp_path / "x.onnx", provider="cuda")


@pytest.mark.parametrize(
    "names, works, refuses, wanted",
    [
        ([CPU], [CPU], [], [CPU]),
        ([DML, CUDA, CPU], [DML, CUDA, CPU], [], [CUDA, CPU]),
        ([DML, CUDA, CPU], [DML, CPU], [], [DML, CPU]),
        ([DML, CUDA, CPU], [CPU], [DML], [CPU]),
        (["TensorrtExecutionProvider", CPU], [CPU], [], [CPU]),
    ],
)
def test_auto_takes_the_first_that_works(fake, tmp_path, names, works, refuses, wanted):
    fake(*names, works=works, refuses=refuses)
    assert open_session(tmp_path / "x.onnx", provider="auto").get_providers() == wanted


def test_a_damaged_file_is_told_by_auto_as_well(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match="cannot load"):
        open_session(tmp_path / "x.onnx", provider="auto")


@pytest.mark.parametrize("provider, most", [("directml", 1), ("cpu", 3)])
def test_only_directml_runs_for_one_thread_at_a_time(fake, tmp_path, provider, most):
    module = fake(DML, CPU, works=(DML, CPU))
    session = Session(tmp_path / "x.onnx", provider=provider)
    go = threading.Barrier(3)
    threads = [threading.Thread(target=lambda: (go.wait(), session.run(["xyz"], {}))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert module.most == most
    assert getattr(module.options[0], "enable_mem_pattern", None) == (False if provider == "directml" else None)


def test_pickled_copies_keep_the_provider():
    session = Session(find("swift") / MODEL_FILE, 1, "auto")
    copy = pickle.loads(pickle.dumps(session))
    assert (copy.provider, copy.threads) == ("auto", 1) and copy.outputs == session.outputs


def test_a_detector_of_ones_own_gets_the_provider(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(PyramidDetector, "__init__", lambda self, *given: seen.append(given))
    canthus.load(threads=1, detector=tmp_path, provider="auto")
    assert seen == [(tmp_path, 1, None, "auto")]


def test_opening_in_many_threads_leaves_the_environment_alone(fake, monkeypatch):
    fake(CPU)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    problems = []

    def ask():
        try:
            for _ in range(2000):
                providers.runtime()
        except KeyError as error:
            problems.append(error)

    try:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not problems and "ORT_DISABLE_TELEMETRY" not in providers.os.environ
