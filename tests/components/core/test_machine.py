"""Facts about the machine that measurements depend on."""

import subprocess
import sys

import pytest

from components.core import machine


def test_describes_this_machine_as_text():
    facts = machine.describe()
    assert facts["cpu"]
    assert int(facts["cores"]) >= 1
    assert facts["numpy"]
    assert all(isinstance(value, str) for value in facts.values())


def test_heavy_packages_are_not_imported_to_tell_their_versions():
    code = (
        "import sys; from components.core.machine import describe; describe(); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime', 'openvino')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gpus_are_read_from_nvidia_smi():
    listing = "NVIDIA H100 80GB HBM3, 81559, 570.86, 9.0\nNVIDIA L4, [N/A], 570.86, 8.9\n\nNo devices were found\n"
    assert machine.parse_gpus(listing) == (
        machine.Gpu("NVIDIA H100 80GB HBM3", 81559, "570.86", "9.0"),
        machine.Gpu("NVIDIA L4", 0, "570.86", "8.9"),
    )


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None), ("nonsense", None)]
)
def test_a_containers_cpu_limit_counts(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert machine._cgroup_cores(tmp_path) == cores


def test_the_older_cgroup_files_count_too(tmp_path):
    assert machine._cgroup_cores(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert machine._cgroup_cores(tmp_path) is None
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("300000\n")
    assert machine._cgroup_cores(tmp_path) == 3
