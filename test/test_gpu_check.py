"""The GPU path compared with its references. Without a GPU: kernels run in Triton's interpreter, and the CPU stands for
the device; kernels that lie, raise, end the process or hang are patched ones (`unsound_kernels`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from renderocc_model.inference import gpu_cases
from renderocc_model.inference.gpu_check import Finding, cache_file, check, leave_out_unsound
from renderocc_model.ops.execution import choose_backend
from renderocc_model.ops.left_out import GPU_PARTS, leave_out, left_out, use_again

pytestmark = pytest.mark.slow

TEST = Path(__file__).resolve().parent
CPU = torch.device("cpu")
KERNELS = ("voxel_pooling", "visibility", "render", "termination", "resample")


@pytest.fixture(autouse=True)
def nothing_is_left_out(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # of the process that checks
    yield
    use_again()


def command(*faults: str) -> tuple[str, ...]:
    return (sys.executable, str(TEST / "unsound_kernels.py"), *faults, "--")


def check_small(tmp_path, *faults, parts=("visibility", "voxel_pooling"), limit=60.0, **options) -> list[Finding]:
    """A check of kernels with faults, `fault:part`."""
    return check(CPU, parts, cache=tmp_path / "check.json", command=command(*faults), limit=limit, **options)


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def test_every_kernel_is_found_sound(tmp_path):
    findings = check(CPU, KERNELS, anew=True, cache=tmp_path / "check.json")
    assert [(finding.part, finding.kind, finding.text) for finding in findings] == [
        (part, "sound", "") for part in KERNELS
    ]


def test_every_part_has_a_case_and_a_name_for_people():
    assert set(gpu_cases.CASES) == set(GPU_PARTS)


@pytest.mark.parametrize("part", KERNELS)
def test_a_kernel_that_lies_is_found(part, tmp_path):
    (finding,) = check_small(tmp_path, f"lies:{part}", parts=(part,))
    assert finding.kind == "differs"
    assert finding.sentence.startswith(f"{part} is left out, it differs from its reference (")


def test_a_kernel_that_raises_or_ends_its_process_is_found_and_the_next_ones_are_checked(tmp_path):
    raised, died, sound = check_small(
        tmp_path, "raises:visibility", "dies:resample", parts=("visibility", "resample", "voxel_pooling")
    )
    assert raised.kind == "fails" and raised.text == "RuntimeError: no kernel image is available"
    assert died.kind == "fails" and "ended with signal 11" in died.text
    assert sound.kind == "sound"


def test_a_kernel_that_hangs_is_ended_at_its_limit_and_tried_again_at_the_next_start(tmp_path):
    begun = time.monotonic()
    hung, sound = check_small(tmp_path, "hangs:visibility", limit=20.0)
    assert (hung.kind, hung.text) == ("hangs", "within 20 s") and sound.kind == "sound"
    assert time.monotonic() - begun < 300  # it would hang for an hour
    mended, sound = check_small(tmp_path)
    assert (mended.kind, mended.remembered) == ("sound", False) and sound.remembered


def test_verdicts_are_remembered_for_a_device_until_they_are_asked_for_anew(tmp_path):
    assert kinds(check_small(tmp_path, "lies:visibility")) == ["differs", "sound"]
    later = check_small(tmp_path)  # the kernel is sound now, but the same sources said otherwise
    assert kinds(later) == ["differs", "sound"] and all(finding.remembered for finding in later)
    assert kinds(check_small(tmp_path, anew=True)) == ["sound", "sound"]
    assert kinds(check_small(tmp_path, "lies:visibility")) == ["sound", "sound"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "verdicts": {"a": {"b": "c"}}}', "\0"]
)
def test_a_damaged_file_of_verdicts_is_made_anew(content, tmp_path):
    (tmp_path / "check.json").write_text(content)
    (finding,) = check_small(tmp_path, parts=("voxel_pooling",))
    assert (finding.kind, finding.remembered) == ("sound", False)
    (verdicts,) = json.loads((tmp_path / "check.json").read_text())["verdicts"].values()
    assert verdicts == {"voxel_pooling": ["sound", ""]}
    assert [path.name for path in tmp_path.iterdir()] == ["check.json"]


def test_the_file_lies_in_the_users_cache(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/a")
    assert cache_file() == Path("/var/a/renderocc/gpu_check.json")


def test_auto_takes_the_reference_for_what_is_left_out_and_a_named_backend_stays():
    def only_triton(name):
        return "is not for this device" if name == "cpu" else None

    assert choose_backend("auto", only_triton, "visibility") == "triton"
    leave_out("visibility", "differs from its reference")
    assert choose_backend("auto", only_triton, "visibility") == "reference"
    assert choose_backend("auto", only_triton, "render") == "triton"
    assert choose_backend("triton", only_triton, "visibility") == "triton"
    with pytest.raises(ValueError, match="part is 'visible'; expected one of voxel_pooling"):
        leave_out("visible", "")


def test_a_predictor_with_lying_kernels_computes_the_right_volume_once_they_are_left_out(tmp_path):
    script = [sys.executable, str(TEST / "unsound_kernels.py"), "lies:visibility", "lies:voxel_pooling", "--predictor"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(script, env=environment, cwd=TEST.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {"before": False, "after": True, "left_out": ["visibility", "voxel_pooling"]}


def test_the_graph_is_not_recorded_where_it_or_a_part_inside_is_left_out():
    from renderocc_model.inference.predictor import Predictor

    predictor = Predictor.untrained("tiny", device="cpu", backend="torch")
    assert not predictor._records  # no graph on a CPU
    predictor._recorder = lambda function: function
    for part in ("cuda_graph", "voxel_pooling", "visibility"):
        assert predictor._records
        leave_out(part, "fails")
        assert not predictor._records
        use_again()


def test_a_graph_that_replays_old_numbers_is_found():
    def stale(function, device):
        result = function()
        return lambda: result

    gpu_cases.check_cuda_graph(CPU, lambda function, device: function)
    with pytest.raises(gpu_cases.Difference, match="what is replayed differs by"):
        gpu_cases.check_cuda_graph(CPU, stale)


def test_a_jpeg_decoder_that_swaps_colours_is_found():
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(data):
        return decode_jpeg(data, mode=ImageReadMode.RGB)

    gpu_cases.check_nvjpeg(CPU, decode)
    with pytest.raises(gpu_cases.Difference, match="a JPEG 4:2:0 differs by"):
        gpu_cases.check_nvjpeg(CPU, lambda data: decode(data).flip(0))


def test_jpegs_are_decoded_on_the_cpu_where_nvjpeg_is_left_out():
    from test_device_decoding import MODEL, TABLE

    from renderocc_model.images.preprocessing import view_from_compressed
    from renderocc_model.inference.device_decoding import DeviceDecoder

    said = []
    leave_out("nvjpeg", "did not end (within 90 s)")
    decoder = DeviceDecoder("cpu", lambda *words: said.append(words))
    picture = np.random.default_rng(0).integers(0, 256, (MODEL.height, MODEL.width, 3), np.uint8)
    data = cv2.imencode(".jpg", picture)[1].ravel()
    for _ in range(2):
        view = decoder.view_from_compressed(TABLE, data, "front")
        assert np.array_equal(view.numpy(), view_from_compressed(TABLE, data))
    text = "its images are decoded on the CPU: nvJPEG is left out, it did not end (within 90 s)"
    assert said == [("front", text)]


class Log:
    def __init__(self):
        self.errors, self.infos = [], []

    def error(self, text):
        self.errors.append(text)

    def info(self, text):
        self.infos.append(text)


def test_the_node_says_what_it_leaves_out_in_its_log_and_diagnostics(tmp_path, monkeypatch):
    pytest.importorskip("rclpy")
    from types import SimpleNamespace

    from diagnostic_msgs.msg import DiagnosticStatus

    from renderocc_ros.frame.network_setup import leave_out_unsound_parts
    from renderocc_ros.output import diagnostics
    from renderocc_ros.parameters import NodeConfig

    log = Log()
    leave_out_unsound_parts(
        NodeConfig(), CPU, log, cache=tmp_path / "check.json", command=command("lies:visibility", "skips:cuda_graph")
    )
    (error,) = log.errors
    assert error.startswith("visibility is left out, it differs from its reference (visible voxels: ")
    assert error.endswith(": PyTorch does the work of the Triton kernels of visibility, more slowly")
    assert log.infos[-1] == "5 of 6 parts of the GPU path are sound; 0 remembered"  # nvJPEG is not asked for
    predictor = SimpleNamespace(
        config=SimpleNamespace(name="tiny"), device="cuda", backend="torch", precision="float16", threshold=0.5,
        provenance={},
    )  # fmt: skip
    report = SimpleNamespace(log=SimpleNamespace(current=lambda now, recent: []), now=0.0)
    parts = SimpleNamespace(predictor=predictor, config=NodeConfig())
    line = diagnostics._network_line(report, parts)
    assert line.level == DiagnosticStatus.WARN and line.values["left out of the GPU path"] == "visibility"
    assert line.texts[0].startswith("visibility is left out, it differs from its reference (")


def test_leaving_out_is_for_what_is_not_sound(tmp_path):
    leave_out_unsound(
        CPU, ("visibility", "voxel_pooling"), cache=tmp_path / "c.json", command=command("raises:visibility")
    )
    assert left_out() == {"visibility": "fails (RuntimeError: no kernel image is available)"}


def test_doctor_names_what_is_left_out(tmp_path):
    from renderocc_model.base.findings import Findings
    from renderocc_ros.commands.doctor.gpu import check_gpu

    findings = Findings()
    check_gpu(
        findings, "cpu", cache=tmp_path / "c.json", parts=("visibility", "resample"), command=command("lies:resample")
    )
    first, second = findings.items
    assert (first.level, first.subject) == ("ok", "gpu visibility")
    assert (second.level, second.subject) == ("warn", "gpu resample") and findings.could_run
    if not torch.cuda.is_available():
        check_gpu(findings)
        assert "torch sees no GPU: no kernel was checked" in findings.items[-1].line()
