"""Kinds of kernels, and how the time of a step is split, on short lists of events."""

from __future__ import annotations

import pytest
from jax.profiler import ProfileData

from tlc_jax.bench.kernels import Event, describe, device_events, kind, operations_of, split


@pytest.mark.parametrize(
    "expected, names",
    [
        (
            "products",
            [
                "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NTN",
                "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_bf16_128x128_32x5_nn>",
                "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_execute_kernel",
                "void cublasLt::splitKreduce_kernel<32, 16, int, float>",
                "void gemv2T_kernel_val<int, int, __nv_bfloat16>",
                "gemm_fusion_dot_12_0",
                "triton_gemm_dot.5",
                "dot.12",
                "broadcast_dot_fusion",
            ],
        ),
        (
            "attention",
            [
                "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3_64x64",
                "void cudnn::fusion::compute_dot_do_o_specialized<true, __nv_bfloat16, 128>",
                "void cudnn::fusion::convert_dq_to_16bits<true, __nv_bfloat16>",
                "fmha_v2_flash_attention_fp16_S_128_kernel",
                "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128>>",
            ],
        ),
        (
            "collectives",
            [
                "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
                "all-reduce-start.1",
                "all_gather_fusion",
                "reduce-scatter.3",
            ],
        ),
        ("other", ["MemcpyD2D", "Memset"]),
        (
            "element_wise",
            [
                "loop_add_convert_fusion_7",
                "input_reduce_fusion_3",
                "triton_softmax_4",
                "wrapped_scatter",
                "RngBitGenerator",
            ],
        ),
    ],
)
def test_names_of_kernels_have_a_kind(expected, names) -> None:
    assert {name: kind(Event(name, 0.0, 1.0)) for name in names} == dict.fromkeys(names, expected)


PROGRAM = """
HloModule jit_step

%fused_computation.1 (p: f32[8,8], q: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  %q = f32[8,8]{1,0} parameter(1)
  ROOT %dot.3 = f32[8,8]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%fused_computation.2 (p: f32[8,8]) -> f32[8,8] {
  %p = f32[8,8]{1,0} parameter(0)
  ROOT %add.3 = f32[8,8]{1,0} add(%p, %p)
}

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %ynn_fusion.1 = f32[8,8]{1,0} fusion(%x, %x), kind=kCustom, calls=%fused_computation.1
  %cublas-gemm.4 = f32[8,8]{1,0} custom-call(%x), metadata={op_name="jit(step)/attention/dot"}
  %custom-call.6 = f32[8,8]{1,0} custom-call(%x), custom_call_target="__cublas$lt$matmul"
  %multiply_fusion.5 = f32[8,8]{1,0} fusion(%x), kind=kLoop, calls=%fused_computation.2, \
metadata={op_name="jit(step)/transpose/attention/mul"}
  ROOT %ynn_fusion.2 = f32[8,8]{1,0} fusion(%ynn_fusion.1), kind=kLoop, calls=%fused_computation.2
}
"""


@pytest.mark.parametrize(
    "name, op, expected",
    [
        ("ynn_fusion.1", "", "products"),  # on a CPU
        ("ynn_fusion_1", "", "products"),  # on a GPU
        ("ynn_fusion.2", "", "element_wise"),
        ("nvjet_tst_64x8", "cublas-gemm.4", "attention"),
        ("nvjet_tst_64x8", "cublas-gemm.3", "products"),
        ("void dot_kernel<float>", "custom-call.6", "products"),
        ("multiply_fusion_5", "multiply_fusion.5", "attention"),
        ("MemcpyD2D", "multiply_fusion.5", "other"),
    ],
)
def test_the_program_tells_what_an_operation_is_for(name, op, expected) -> None:
    assert kind(Event(name, 0.0, 1.0, op), operations_of(PROGRAM)) == expected


GPU_TRACE = """
planes {
  name: "/device:GPU:0"
  lines {
    name: "Stream #7(Compute)" timestamp_ns: 1000
    events { metadata_id: 1 offset_ps: 2000000 duration_ps: 3000000
             stats { metadata_id: 9 str_value: "cublas-gemm.4" } }
    events { metadata_id: 2 offset_ps: 6000000 duration_ps: 1000000
             stats { metadata_id: 9 ref_value: 10 } }
  }
  lines { name: "Stream #9(MemcpyD2H)" timestamp_ns: 1000
    events { metadata_id: 3 offset_ps: 7000000 duration_ps: 500000 } }
  lines { name: "XLA Modules" timestamp_ns: 1000
    events { metadata_id: 4 offset_ps: 0 duration_ps: 9000000 } }
  event_metadata { key: 1 value { id: 1 name: "nvjet_tst_64x8" } }
  event_metadata { key: 2 value { id: 2 name: "loop_add_fusion_2" } }
  event_metadata { key: 3 value { id: 3 name: "MemcpyD2H" } }
  event_metadata { key: 4 value { id: 4 name: "jit_step" } }
  stat_metadata { key: 9 value { id: 9 name: "hlo_op" } }
  stat_metadata { key: 10 value { id: 10 name: "loop_add_fusion.2" } }
}
planes {
  name: "/host:CPU"
  lines { name: "python" timestamp_ns: 1000
    events { metadata_id: 1 offset_ps: 0 duration_ps: 9000000
             stats { metadata_id: 9 str_value: "dot.1" } } }
  event_metadata { key: 1 value { id: 1 name: "dot.1" } }
  stat_metadata { key: 9 value { id: 9 name: "hlo_op" } }
}
"""


def test_kernels_of_a_gpu_are_the_events_of_its_streams() -> None:
    profile = ProfileData.from_serialized_xspace(
        ProfileData.text_proto_to_serialized_xspace(GPU_TRACE)
    )
    found = device_events(profile)
    assert [(event.name, event.op) for event in found] == [
        ("nvjet_tst_64x8", "cublas-gemm.4"),
        ("loop_add_fusion_2", "loop_add_fusion.2"),
        ("MemcpyD2H", ""),
    ]
    assert [event.end - event.start for event in found] == pytest.approx([3e-6, 1e-6, 0.5e-6])
    # In microseconds: 3 of products, a gap of 1, 1 and then 0.5 of others.
    kinds = split(found, steps=1)["kinds"]
    assert kinds["gaps"]["ms"] == pytest.approx(1e-3)


def test_kinds_and_gaps_add_up_to_the_step() -> None:
    step = [
        Event("nvjet_a", 0.000, 0.004),
        Event("loop_add_fusion", 0.004, 0.005),
        Event("loop_multiply_fusion", 0.006, 0.007),
        Event("nvjet_a", 0.007, 0.010),
    ]
    # The second step follows after a gap of 2 ms.
    second = [Event(one.name, one.start + 0.012, one.end + 0.012) for one in step]
    found = split([*second, *step], steps=2)
    assert found["step_ms"] == pytest.approx(11.0)
    kinds = found["kinds"]
    assert {name: round(row["ms"], 6) for name, row in kinds.items()} == {
        "products": 7.0,
        "attention": 0.0,
        "element_wise": 2.0,
        "collectives": 0.0,
        "other": 0.0,
        "gaps": 2.0,
    }
    assert kinds["gaps"]["share"] == pytest.approx(2 / 11)
    assert (kinds["products"]["kernels"], kinds["gaps"]["kernels"]) == (2, 0)
    first, *_ = found["longest"]
    assert first == {"name": "nvjet_a", "kind": "products", "ms": pytest.approx(7), "kernels": 2}
    lines = [line.split() for line in "\n".join(describe(found)).splitlines()]
    assert ["products", "7.00", "63.6%", "2"] in lines


def test_kernels_that_overlap_share_the_time() -> None:
    events = [
        Event("while.3", 0.0, 1.0),  # holds the others
        Event("nvjet_a", 1.0, 5.0),
        Event("MemcpyD2D", 2.0, 4.0),
        Event("loop_add_fusion", 2.0, 4.0),
        Event("loop_add_fusion", 3.0, 4.0),
        Event("memset", 3.0, 3.0),
    ]
    found = split(events, steps=1)
    ms = {name: row["ms"] / 1e3 for name, row in found["kinds"].items() if row["ms"]}
    assert ms == {
        "products": pytest.approx(2 + 1 / 3 + 1 / 4),
        "other": pytest.approx(1 / 3 + 1 / 4),
        "element_wise": pytest.approx(1 / 3 + 2 / 4),
    }
    assert sum(ms.values()) == pytest.approx(found["step_ms"] / 1e3) == 4.0


def test_longest_are_ten() -> None:
    events = [Event(f"loop_add_fusion_{i}", i, i + 0.01 * i) for i in range(1, 15)]
    names = [row["name"] for row in split(events, steps=1)["longest"]]
    assert names == [f"loop_add_fusion_{i}" for i in range(14, 4, -1)]


def test_a_trace_without_kernels_is_empty() -> None:
    found = split([], steps=3)
    assert found["step_ms"] == 0.0 and found["longest"] == []
    assert "no kernels in the trace" in describe(found)[0]
