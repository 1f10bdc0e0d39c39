"""scripts/setup.sh says at once all that a machine lacks, before it installs anything."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "awk", "cat", "cut", "dirname", "du", "grep", "sha256sum")


@pytest.fixture
def clone(tmp_path):
    """The script in a folder without an environment, and a PATH on which Python and df are what a test makes them."""
    (tmp_path / "bin").mkdir()
    for name in ("scripts", "pyproject.toml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tmp_path / name)
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    return tmp_path


def fake(clone: Path, name: str, script: str) -> None:
    (clone / "bin" / name).unlink(missing_ok=True)  # a link to the real program, which must not be written through
    (clone / "bin" / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
    (clone / "bin" / name).chmod(0o755)


def setup(clone: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [shutil.which("bash"), "scripts/setup.sh"],
        cwd=clone,
        env={"PATH": str(clone / "bin"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def disk_of(clone: Path, gb: int) -> None:
    fake(clone, "df", f'echo head; echo "disk 0 0 {gb * 1024 * 1024} 0% /"')


def test_little_disk_and_no_python_are_said_together_and_nothing_is_made(clone):
    disk_of(clone, 3)
    done = setup(clone)
    assert done.returncode == 1
    assert "3 GB free on the disk" in done.stderr and "no Python 3.10, 3.11 or 3.12" in done.stderr
    assert "nothing was installed" in done.stderr
    assert not (clone / ".venv").exists()


def test_what_an_interrupted_installation_has_written_counts_as_free(clone):
    disk_of(clone, 4)
    fake(clone, "du", f'echo "{6 * 1024 * 1024} .venv"')
    assert "GB free on the disk" not in setup(clone).stderr


def test_an_environment_of_the_users_without_python_or_without_verl_is_refused(clone):
    assert "has no bin/python" in setup(clone, EKIPL_VENV=str(clone / "mine")).stderr
    (clone / "mine" / "bin").mkdir(parents=True)
    (clone / "mine" / "bin" / "python").write_text(f"#!{shutil.which('bash')}\nexit 1\n")
    (clone / "mine" / "bin" / "python").chmod(0o755)
    done = setup(clone, EKIPL_VENV=str(clone / "mine"))
    assert done.returncode == 1 and "must hold verl 0.9.1" in done.stderr


@pytest.mark.parametrize(("platform", "folder"), [("cpu", ".venv-cpu"), ("", ".venv")])
def test_beside_a_gpu_a_cpu_run_has_an_environment_of_its_own(clone, platform, folder):
    fake(clone, "nvidia-smi", 'echo "GPU 0: A100"')
    disk_of(clone, 3)
    assert f"{clone}/{folder}," in setup(clone, VERL_PLATFORM=platform).stderr
