"""What `auto` stands for on devices that need not be there, and how a run remembers it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tlc_jax import config as configs
from tlc_jax.core.errors import InputError
from tlc_jax.runs import auto
from tlc_jax.runs.workdir import claim, read_config


def gpu(capability: str, kind: str = "NVIDIA H200") -> SimpleNamespace:
    return SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)


CPU = SimpleNamespace(platform="cpu", device_kind="cpu")
TPU = SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
H200, A100 = gpu("9.0"), gpu("8.0", "NVIDIA A100-SXM4-40GB")
V100, MI300 = gpu("7.0", "Tesla V100-SXM2-16GB"), gpu("gfx942", "AMD Instinct MI300X")


def resolved(**sections) -> configs.Config:
    return configs.resolve(sections)


def chosen(device, **sections) -> tuple[str, str, str]:
    impl = auto.for_device(resolved(**sections), device).impl
    return impl.matmul, impl.layer_loop, impl.attention


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (H200, ("bfloat16", "unrolled", "cudnn")),
        (A100, ("bfloat16", "unrolled", "cudnn")),
        (V100, ("float32", "unrolled", "xla")),
        (MI300, ("float32", "unrolled", "xla")),
        (TPU, ("bfloat16", "unrolled", "pallas")),
    ],
    ids=lambda value: getattr(value, "device_kind", ""),
)
def test_accelerators_get_their_fast_types_and_programs(device, expected) -> None:
    assert chosen(device) == expected


@pytest.mark.parametrize(("instructions", "matmul"), [(True, "mix"), (False, "float32")])
def test_a_cpu_multiplies_bfloat16_where_it_has_instructions(
    monkeypatch, instructions, matmul
) -> None:
    monkeypatch.setattr(auto, "multiplies_bfloat16", lambda: instructions)
    assert chosen(CPU) == (matmul, "unrolled", "xla")


@pytest.mark.parametrize(
    "sections",
    [
        {"impl": {"matmul": "mix"}},
        {"model": {"hidden": 312, "heads": 12}},  # heads of 26
        {"model": {"hidden": 288, "head_size": 144}},
        {"data": {"length": 127}},
    ],
    ids=str,
)
def test_attention_falls_back_to_xla_where_cudnn_cannot_work(sections) -> None:
    assert chosen(H200, **sections)[2] == "xla"


@pytest.mark.parametrize(
    "sections", [{"impl": {"matmul": "mix"}}, {"model": {"hidden": 320, "heads": 40}}], ids=str
)
def test_attention_falls_back_to_xla_where_the_kernel_for_tpus_cannot_work(sections) -> None:
    assert chosen(TPU, **sections)[2] == "xla"


@pytest.mark.parametrize(
    ("attention", "device", "sections", "message"),
    [
        ("cudnn", CPU, {}, "cpu is not an NVIDIA GPU"),
        ("cudnn", TPU, {}, "TPU v5 lite is not an NVIDIA GPU"),
        ("cudnn", V100, {}, "compute capability 8.0 or later"),
        ("cudnn", H200, {"model": {"hidden": 312, "heads": 12}}, "heads are 26 wide"),
        ("cudnn", H200, {"data": {"length": 127}}, "data.length=127 is odd"),
        ("pallas", CPU, {}, "cpu is not a TPU"),
        ("pallas", H200, {}, "NVIDIA H200 is not a TPU"),
        ("pallas", TPU, {"model": {"hidden": 320, "heads": 40}}, "heads are 8 wide"),
    ],
    ids=lambda value: getattr(value, "device_kind", str(value)),
)
def test_fused_attention_is_refused_where_it_cannot_work(
    attention, device, sections, message
) -> None:
    settings = resolved(**sections, impl={"attention": attention})
    with pytest.raises(InputError, match=message) as refused:
        auto.for_device(settings, device)
    assert "set impl.attention=auto" in str(refused.value)


def test_settings_that_are_given_stay() -> None:
    given = {"matmul": "bfloat16", "layer_loop": "unrolled", "attention": "xla", "remat": True}
    for device in (CPU, H200):
        assert auto.chosen(auto.for_device(resolved(impl=given), device)) == {"impl": given}


def test_a_run_goes_on_as_it_began_on_another_device(tmp_path) -> None:
    settings = resolved()
    claim(tmp_path, settings).close()
    auto.record(auto.for_device(settings, TPU), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["impl"]["matmul"] == "auto"
    assert stored["resolved"]["impl"]["matmul"] == "bfloat16"
    assert read_config(tmp_path / "config.json") == settings

    # A second start claims the workdir with the same settings, and what was chosen stays.
    claim(tmp_path, resolved(impl={"prefetch": 9})).close()
    assert json.loads((tmp_path / "config.json").read_text())["resolved"] == stored["resolved"]
    again = auto.for_device(auto.as_begun(settings, tmp_path / "other", tmp_path), CPU)
    assert (again.impl.matmul, again.impl.layer_loop) == ("bfloat16", "unrolled")
    asked = resolved(impl={"matmul": "float32"})
    assert auto.as_begun(asked, tmp_path).impl.matmul == "float32"


def test_a_run_of_a_version_without_auto_goes_on_with_the_values_that_it_had(tmp_path) -> None:
    older = configs.to_dict(resolved(impl={"matmul": "float32", "layer_loop": "scan"}))
    older["impl"]["remat"] = False
    del older["impl"]["attention"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    claim(tmp_path, resolved()).close()
    impl = auto.for_device(auto.as_begun(resolved(), tmp_path), TPU).impl
    assert (impl.matmul, impl.layer_loop) == ("float32", "scan")


@pytest.mark.parametrize("begun", [H200, TPU], ids=lambda device: device.device_kind)
def test_fused_attention_is_not_demanded_where_a_run_goes_on_without_it(tmp_path, begun) -> None:
    settings = resolved()
    claim(tmp_path, settings).close()
    auto.record(auto.for_device(settings, begun), tmp_path)
    again = auto.as_begun(settings, tmp_path)
    for device, attention in ((CPU, "xla"), (H200, "cudnn"), (TPU, "pallas")):
        impl = auto.for_device(again, device).impl
        assert (impl.matmul, impl.attention) == ("bfloat16", attention)
