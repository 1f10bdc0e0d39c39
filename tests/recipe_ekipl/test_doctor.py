"""The doctor's findings, without Ray and verl; tests/contracts/test_doctor.py runs it whole."""

import os
import socket

from recipe.ekipl import doctor
from recipe.ekipl.hardware.machine import Gpu, Machine
from recipe.ekipl.hardware.memory import GIB


def machine(**sizes):
    return Machine(**{"gpus": (), "memory": 20 * GIB, "shared_memory": 8 * GIB, "disk": 100 * GIB, **sizes})


def remedies(findings):
    return [finding.remedy for finding in findings if finding.remedy]


def test_little_shared_memory_is_red_and_says_the_flag():
    assert "--shm-size=1g" in remedies(doctor.memory(machine(shared_memory=GIB // 16)))[0]


def test_a_full_disk_is_red(tmp_path):
    assert "ekipl.run_dir" in remedies(doctor.disk(machine(disk=GIB), tmp_path))[0]


def test_a_machine_with_room_is_green(tmp_path):
    assert remedies([*doctor.memory(machine()), *doctor.disk(machine(), tmp_path)]) == []


def test_another_version_is_red_and_says_which_is_wanted(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: "0.10.0" if name == "verl" else doctor.WANTED[name][0])
    (finding,) = doctor.versions()
    assert "verl==0.9.1" in finding.remedy and "transformers==" not in finding.remedy


def test_a_proxy_that_would_take_loopback_requests_is_red(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert remedies(doctor.ports()) == []
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert remedies(doctor.ports()) == ["export no_proxy=127.0.0.1,localhost"]
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert remedies(doctor.ports()) == []


def test_loopback_without_sockets_is_red(monkeypatch):
    def refuse(*_, **__):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(socket, "create_server", refuse)
    assert "127.0.0.1" in remedies(doctor.ports())[0]


DRIVER = {"ekipl": "0.1.0", "verl": "0.9.1", "platform": "cuda", "flash-attn": "2.8.3"}


def test_a_node_with_another_version_is_named():
    (finding,) = doctor.compare(DRIVER, {"a": DRIVER, "b": {**DRIVER, "verl": "0.9.0"}})
    assert finding.found == "b: verl 0.9.0 (the driver 0.9.1)" and finding.remedy


def test_a_node_without_flash_attn_and_one_on_another_platform_are_named():
    node = {"ekipl": "0.1.0", "verl": "0.9.1", "platform": "cpu"}
    (finding,) = doctor.compare(DRIVER, {"a": {**DRIVER, "flash-attn": "not installed"}})
    assert finding.found == "a: flash-attn not installed (the driver 2.8.3)"
    (finding,) = doctor.compare(DRIVER, {"a": node})
    assert "platform cpu (the driver cuda)" in finding.found


def test_a_node_that_cannot_load_our_worker_is_named():
    (finding,) = doctor.compare(DRIVER, {"a": DRIVER, "b": ModuleNotFoundError("No module named 'ekipl_rollout'")})
    assert finding.found == "b: No module named 'ekipl_rollout'" and "PYTHONPATH" in finding.remedy


def test_alike_nodes_are_one_green_line():
    (finding,) = doctor.compare(DRIVER, {"a": DRIVER, "b": DRIVER})
    assert not finding.remedy and "the driver and a Ray worker on each of 2 nodes" in finding.found


def test_a_node_whose_vllm_does_not_load_our_plugin_is_named():
    (finding,) = doctor.engines({"a": None, "b": RuntimeError("a process of vLLM runs without our plugin: why")})
    assert finding.found == "b: a process of vLLM runs without our plugin: why" and "pip install" in finding.remedy
    (finding,) = doctor.engines({"a": None, "b": None})
    assert not finding.remedy and "2 nodes loaded ekipl_cpu" in finding.found


def test_a_gpu_machine_without_flash_attn_and_one_whose_gpus_are_hidden_are_red(monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM", raising=False)
    monkeypatch.setattr(doctor.cpu, "is_selected", lambda: False)
    monkeypatch.setattr(doctor, "installed", lambda name: None)
    (finding,) = doctor.platform(machine(gpus=(Gpu("A100", 80 * GIB),), hidden_gpus=7))
    assert finding.found.startswith(
        "8 GPUs, 1 visible by CUDA_VISIBLE_DEVICES, 80 of 80 GiB free on the fullest (A100)"
    )
    assert "flash-attn is not installed" in finding.found
    assert "pip install flash-attn" in finding.remedy
    monkeypatch.setattr(doctor, "installed", lambda name: "2.8.3")
    assert remedies(doctor.platform(machine(gpus=(Gpu("A100", 80 * GIB),)))) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = doctor.platform(machine(hidden_gpus=8))
    assert "all hidden" in finding.found and "unset CUDA_VISIBLE_DEVICES" in finding.remedy


def test_the_status_says_whether_something_must_be_mended(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("VERL_PLATFORM", "cpu")
    monkeypatch.setattr(doctor, "seams", lambda: iter(()))
    monkeypatch.setattr(doctor, "versions", lambda: iter([doctor.Finding("versions", "fine")]))
    monkeypatch.setattr(os, "environ", {**os.environ, "no_proxy": "*"})
    monkeypatch.setattr(doctor, "look", lambda *_, **__: machine())
    assert doctor.main(["--without-ray", "--run-dir", str(tmp_path)]) == 0
    assert "all green" in capsys.readouterr().out
    monkeypatch.setattr(doctor, "look", lambda *_, **__: machine(disk=0))
    assert doctor.main(["--without-ray", "--run-dir", str(tmp_path)]) == 1
    assert "MEND" in capsys.readouterr().out
