"""The roofline of a compiled GPU program, on a small made-up one, and the hosts that are known."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math

import pytest

from tlc_jax.core.devices import peak_flops
from tlc_jax.core.errors import InputError
from tlc_jax.planning import gpu as planned
from tlc_jax.planning.gpu import GPUS, KINDS, Gpu, memory_fraction, open_host, roofline

# A kind with round numbers: 1 TB/s reached, 10 GB/s links. Products reach 800 TFLOP/s of an H200.
ROUND = Gpu("NVIDIA H200", 1, 1e12 / planned._MEMORY_SHARE, 1e10, (9, 0), 1, 1.0, 1, 2048)
SLOW = dataclasses.replace(ROUND, memory_rate=1e9 / planned._MEMORY_SHARE)
FLOPS = 800e12

# A loop of 3 runs over 8 stacked layers: it slices a layer's weights inside the product's fusion,
# writes its result in place into a stack, and adds up over 4 devices.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused_product (p.0: bf16[8,4096,4096], p.1: s32[], p.2: bf16[4096,4096]) -> bf16[4096,4096] {
  %p.0 = bf16[8,4096,4096]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %p.2 = bf16[4096,4096]{1,0} parameter(2)
  %zero.1 = s32[] constant(0)
  %bitcast.1 = bf16[8,4096,4096]{2,1,0} bitcast(%p.0)
  %slice.1 = bf16[1,4096,4096]{2,1,0} dynamic-slice(%bitcast.1, %p.1, %zero.1, %zero.1), \
dynamic_slice_sizes={1,4096,4096}
  %bitcast.2 = bf16[4096,4096]{1,0} bitcast(%slice.1)
  ROOT %dot.1 = bf16[4096,4096]{1,0} dot(%p.2, %bitcast.2), lhs_contracting_dims={1}, \
rhs_contracting_dims={0}
}

%fused_update (q.0: f32[8,1000000], q.1: s32[], q.2: f32[1000000]) -> f32[8,1000000] {
  %q.0 = f32[8,1000000]{1,0} parameter(0)
  %q.2 = f32[1000000]{0} parameter(2)
  %negate.1 = f32[1000000]{0} negate(%q.2)
  %bitcast.3 = f32[1,1000000]{1,0} bitcast(%negate.1)
  %q.1 = s32[] parameter(1)
  %zero.2 = s32[] constant(0)
  ROOT %update.1 = f32[8,1000000]{1,0} dynamic-update-slice(%q.0, %bitcast.3, %q.1, %zero.2)
}

%body (arg.1: (s32[], f32[8,1000000])) -> (s32[], f32[8,1000000]) {
  %arg.1 = (s32[], f32[8,1000000]{1,0}, bf16[8,4096,4096]{2,1,0}, bf16[4096,4096]{1,0}) parameter(0)
  %index.1 = s32[] get-tuple-element(%arg.1), index=0
  %stack.1 = f32[8,1000000]{1,0} get-tuple-element(%arg.1), index=1
  %weights.1 = bf16[8,4096,4096]{2,1,0} get-tuple-element(%arg.1), index=2
  %input.1 = bf16[4096,4096]{1,0} get-tuple-element(%arg.1), index=3
  %row.1 = f32[1000000]{0} reduce(%stack.1, %index.1), dimensions={0}, to_apply=%add
  %product.1 = bf16[4096,4096]{1,0} fusion(%weights.1, %index.1, %input.1), kind=kCustom, \
calls=%fused_product, metadata={op_name="jit(step)/while/body/dot_general"}
  %update.2 = f32[8,1000000]{1,0} fusion(%stack.1, %index.1, %row.1), kind=kLoop, \
calls=%fused_update
  %sum-start.1 = f32[1000000]{0} all-reduce-start(%row.1), channel_id=2, \
replica_groups=mesh['axis_0'=4,'axis_1'=1] {'axis_0'}, to_apply=%add
  %sum-done.1 = f32[1000000]{0} all-reduce-done(%sum-start.1)
  ROOT %tuple.1 = (s32[], f32[8,1000000]{1,0}) tuple(%index.1, %update.2)
}

%condition (arg.2: (s32[])) -> pred[] {
  ROOT %lt.1 = pred[] parameter(0)
}

%wrapped (w.0: f32[1000000]) -> f32[1000000] {
  %w.0 = f32[1000000]{0} parameter(0)
  ROOT %convert.9 = f32[1000000]{0} convert(%w.0)
}

ENTRY %main (a.0: f32[1000000]) -> f32[1000000] {
  %a.0 = f32[1000000]{0} parameter(0)
  %tuple.2 = (s32[], f32[8,1000000]{1,0}) tuple(%a.0)
  %while.1 = (s32[], f32[8,1000000]{1,0}) while(%tuple.2), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"},"known_init_step":{"init":"0","step":"1"}}
  %call.1 = f32[1000000]{0} call(%a.0), to_apply=%wrapped
  %async.1 = ((f32[1000000]{0}), f32[1000000]{0}) async-start(%a.0), calls=%wrapped
  ROOT %async.2 = f32[1000000]{0} async-done(%async.1)
}
"""


def milliseconds(program: str, gpu: Gpu = ROUND) -> dict[str, float]:
    return {kind: 1e3 * seconds for kind, seconds in roofline(program, gpu).items()}


def entry(*lines: str) -> str:
    return "HloModule jit_step\n\nENTRY %main (x: f32[1]) -> f32[1] {\n" + "\n".join(
        f"  {line}" for line in lines
    )


def test_a_loop_counts_as_often_as_it_runs() -> None:
    found = milliseconds(PROGRAM)
    assert found["products"] == pytest.approx(3 * 2 * 4096**3 / FLOPS * 1e3)
    assert found["collectives"] == pytest.approx(3 * 2 * 4e6 * 3 / 4 / 1e10 * 1e3)
    # The reduction reads 8 rows and writes one. The update reads a row and writes it in place.
    # What is called reads and writes a row, and so does what is started.
    read_and_written = 3 * ((9 + 2) * 4e6 + 2 * 4) + 2 * 2 * 4e6
    assert found["element_wise"] == pytest.approx(read_and_written / 1e12 * 1e3)
    assert found["attention"] == found["other"] == 0


def test_of_a_product_the_memory_counts_if_it_takes_longer() -> None:
    # The fusion reads one layer of the stacked weights and not all eight.
    moved = 3 * (3 * 2 * 4096**2 + 4)
    assert milliseconds(PROGRAM, SLOW)["products"] == pytest.approx(moved / 1e9 * 1e3)


def test_products_of_float32_take_longer() -> None:
    ratio = milliseconds(PROGRAM.replace("bf16", "f32"))["products"]
    ratio /= milliseconds(PROGRAM)["products"]
    assert ratio == pytest.approx(989 / 494)


def test_no_kernel_takes_less_than_the_least() -> None:
    tiny = entry("%x = f32[1]{0} parameter(0)", "ROOT %y = f32[1]{0} sort(%x)", "}")
    assert milliseconds(tiny) == pytest.approx(dict.fromkeys(KINDS, 0.0) | {"other": 1.7e-3})


@pytest.mark.parametrize(
    ("target", "results", "products"),
    [("__cudnn$fmhaSoftmax", 1, 2), ("__cudnn$fmhaSoftmaxBackward", 3, 5)],
)
def test_fused_attention_has_products_of_its_own(target, results, products) -> None:
    array = "bf16[64,4096,12,64]{3,2,1,0}"
    program = entry(
        f"%q = {array} parameter(0)",
        f"ROOT %y = ({', '.join([array] * results)}) custom-call(%q, %q, %q), "
        f'custom_call_target="{target}", backend_config={{"cudnn_fmha_backend_config": '
        '{"intermediate_tensor_shape": {"element_type": "BF16", '
        '"dimensions": ["64", "12", "4096", "4096"]}}}',
        "}",
    )
    flops = products * 2 * 64 * 12 * 4096 * 4096 * 64
    assert milliseconds(program)["attention"] == pytest.approx(flops / FLOPS * 1e3)


def test_attention_is_told_by_its_name() -> None:
    assert milliseconds(PROGRAM)["attention"] == 0
    named = PROGRAM.replace("body/dot_general", "body/transpose(jvp(attention))/dot_general")
    assert milliseconds(named)["attention"] == milliseconds(PROGRAM)["products"]


def test_products_of_a_library_count() -> None:
    program = entry(
        "%x = bf16[4096,4096]{1,0} parameter(0)",
        "ROOT %y = (bf16[4096,4096]{1,0}, s8[4194304]{0}) custom-call(%x, %x), "
        'custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":'
        '{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}',
        "}",
    )
    assert milliseconds(program)["products"] == pytest.approx(2 * 4096**3 / FLOPS * 1e3)
    # Its workspace is not moved.
    assert milliseconds(program, SLOW)["products"] == pytest.approx(3 * 2 * 4096**2 / 1e9 * 1e3)


@pytest.mark.parametrize(
    ("result", "op", "sent"),
    [
        ("((f32[1000000]{0}), f32[4000000]{0})", "all-gather-start", 3 * 4e6),
        ("f32[4000000]{0}", "all-gather", 3 * 4e6),
        ("((f32[1000000]{0}), f32[250000]{0})", "reduce-scatter-start", 3 * 1e6),
        ("((f32[1000000]{0}), (f32[1000000]{0}))", "all-to-all-start", 3 * 1e6),
        ("(f32[1000000]{0}, f32[1000000]{0})", "collective-permute-start", 4e6),
    ],
)
def test_collectives_send_as_a_ring(result, op, sent) -> None:
    program = entry(
        "%x = f32[1000000]{0} parameter(0)",
        f"ROOT %y = {result} {op}(%x), replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}",
        "}",
    )
    assert milliseconds(program)["collectives"] == pytest.approx(sent / 1e10 * 1e3)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3}}", 4),
        ("[2,4]<=[8]", 4),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
        ("mesh['axis_0'=2,'axis_1'=1,'axis_2'=4], device_ids=([2,4]T(1,0)) {'axis_2'}", 4),
        ("mesh['a'=4,'b'=2], device_ids=([8]) {'a','b'}", 8),
        ("mesh['a'=8] {'a':(2)2}", 2),
    ],
)
def test_groups_of_devices_are_read_as_compilers_write_them(groups, size) -> None:
    program = entry(
        "%x = f32[1000000]{0} parameter(0)",
        f"ROOT %y = f32[1000000]{{0}} all-reduce(%x), replica_groups={groups}, to_apply=%add",
        "}",
    )
    sent = 2 * 4e6 * (size - 1) / size
    assert milliseconds(program)["collectives"] == pytest.approx(sent / 1e10 * 1e3)


def test_of_a_conditional_the_longest_branch_counts() -> None:
    branches = """
%short (s.0: f32[1000000]) -> f32[1000000] {
  %s.0 = f32[1000000]{0} parameter(0)
  ROOT %copy.1 = f32[1000000]{0} copy(%s.0)
}

%long (l.0: f32[1000000]) -> f32[1000000] {
  %l.0 = f32[1000000]{0} parameter(0)
  %copy.2 = f32[1000000]{0} copy(%l.0)
  ROOT %copy.3 = f32[1000000]{0} copy(%copy.2)
}
"""
    program = branches + entry(
        "%x = f32[1000000]{0} parameter(0)",
        "ROOT %y = f32[1000000]{0} conditional(%i, %x, %x, %x), "
        "branch_computations={%short, %long, %short}",
        "}",
    )
    assert milliseconds(program)["element_wise"] == pytest.approx(4 * 4e6 / 1e12 * 1e3)


def test_loop_of_unknown_length_gives_no_estimate() -> None:
    with pytest.raises(ValueError, match="a loop of unknown length"):
        milliseconds(PROGRAM.replace("known_trip_count", "other"))


@pytest.mark.parametrize("name", GPUS)
def test_every_kind_has_a_peak_rate(name) -> None:
    peak = peak_flops(GPUS[name].kind, "bfloat16")
    assert peak is not None
    # The tensor cores of a core do a whole number of multiply-adds a cycle: 512 to 4,096.
    rate = peak / (2 * GPUS[name].cores * GPUS[name].clock * 1e9)
    assert 0.85 < rate / 2 ** round(math.log2(rate)) < 1.1


def test_the_share_of_memory_follows_the_environment(monkeypatch) -> None:
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.delenv("XLA_CLIENT_MEM_FRACTION", raising=False)
    assert memory_fraction() == 0.75
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", ".9")
    assert memory_fraction() == 0.9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "most")
    with pytest.raises(InputError, match="XLA_PYTHON_CLIENT_MEM_FRACTION=most is not a number"):
        memory_fraction()


def fake_packages(monkeypatch, **versions: str) -> None:
    def version(package: str) -> str:
        name = package.replace("-", "_")
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(package)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_without_the_gpu_compiler_the_extra_is_named(monkeypatch) -> None:
    fake_packages(monkeypatch, jaxlib="0.10.2")
    with pytest.raises(InputError, match=r"pip install 'tlc_jax\[cuda\]'"):
        open_host("h100:8")


@pytest.mark.parametrize("cuda", [12, 13])
def test_a_gpu_compiler_of_another_version_is_refused(monkeypatch, cuda) -> None:
    found = {f"jax_cuda{cuda}_plugin": "0.10.2", f"jax_cuda{cuda}_pjrt": "0.10.1"}
    fake_packages(monkeypatch, jaxlib="0.10.2", **found)
    message = rf"jax-cuda{cuda}-pjrt 0.10.1 does not fit jaxlib 0.10.2: .*jax\[cuda{cuda}\]==0.10.2"
    with pytest.raises(InputError, match=message):
        open_host("h100:8")
