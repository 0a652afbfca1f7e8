"""Adding up a compiled TPU program, on a small made-up one."""

from __future__ import annotations

import pytest

from tlc_jax.core.devices import peak_flops
from tlc_jax.planning.tpu import CHIPS, ProgramCost, parse_topology, program_cost

V5E = CHIPS["v5e"]

# Instructions as the compiler writes them: cycles stand beside those that run, none inside fusions.
PROGRAM = """HloModule jit_keyed, is_scheduled=true

%fused_computation.1 (param_0.1: f32[8,128]) -> f32[8,128] {
  %param_0.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  ROOT %add.9 = f32[8,128]{1,0:T(8,128)} add(%param_0.1, %param_0.1)
}

%body.2 (arg.1: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %arg.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %fusion.1 = f32[8,128]{1,0:T(8,128)S(1)} fusion(%get.1), kind=kLoop, calls=%fused_computation.1, \
backend_config={"window_config":{"estimated_cycles":"1000","iteration_bounds":["1"]}}
  %rng-bit-generator.3 = u16[16,128,256]{2,1,0:T(8,128)(2,1)} rng-bit-generator(%key), \
algorithm=rng_default
  %all-reduce.1 = (f32[100]{0:T(128)}, \
/*index=1*/f32[8,128]{1,0:T(8,128)S(1)}) all-reduce(%fusion.1, %get.2), \
channel_id=3, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, to_apply=%add.18.clone
  ROOT %tuple.1 = (s32[], f32[8,128]) tuple(%add.4, %fusion.1)
}

%condition.2 (arg.2: (s32[], f32[8,128])) -> pred[] {
  %constant.3 = s32[]{:T(128)} constant(6)
  %get.4 = s32[]{:T(128)} get-tuple-element(%arg.2), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%get.4, %constant.3), direction=LT
}

ENTRY %main.5_spmd (param.1: f32[8,128]) -> f32[8,128] {
  %param.1 = f32[8,128]{1,0:T(8,128)} parameter(0)
  %copy.1 = f32[8,128]{1,0:T(8,128)} copy(%param.1), \
backend_config={"window_config":{"estimated_cycles":"50"}}
  %copy-start.1 = (f32[8,128]{1,0}, f32[8,128]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%copy.1)
  %while.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) while(%tuple.0), condition=%condition.2, \
body=%body.2
  %all-gather.1 = bf16[64,128]{1,0:T(8,128)} all-gather(%x), replica_groups=[2,8]<=[16], \
dimensions={0}
  ROOT %get.9 = f32[8,128]{1,0:T(8,128)} get-tuple-element(%while.1), index=1
}
"""


def test_a_loop_counts_as_often_as_it_runs() -> None:
    cost = program_cost(PROGRAM, V5E)
    assert cost.cycles == 50 + 6 * 1000
    assert cost.written_bytes == 6 * 2 * 16 * 128 * 256
    reduced = 2 * 4 * (100 + 8 * 128) * 3 / 4  # a ring of 4 sends all but a quarter, twice
    gathered = 2 * 64 * 128 * 7 / 8
    assert cost.sent_bytes == pytest.approx(6 * reduced + gathered)


def test_seconds_follow_from_the_chip() -> None:
    seconds = ProgramCost(cycles=3e9, sent_bytes=1e9, written_bytes=819e6).seconds(CHIPS["v5e"])
    assert seconds == pytest.approx({"compute": 2.0, "collectives": 0.005, "uncounted": 0.001})


def test_loop_of_unknown_length_gives_no_estimate() -> None:
    with pytest.raises(ValueError, match="a loop of unknown length"):
        program_cost(PROGRAM.replace("constant(6)", "parameter(1)"), V5E)


def test_a_length_that_the_compiler_knows_is_taken() -> None:
    known = PROGRAM.replace(
        "body=%body.2", 'body=%body.2, backend_config={"known_trip_count":{"n":"2"}}'
    )
    assert program_cost(known, V5E).cycles == 50 + 2 * 1000


@pytest.mark.parametrize(
    ("flops", "scores", "moved", "cycles"),
    [
        # Forward for 64 rows of 128 positions in 12 heads of 64, where the compiler scheduled
        # 88,224 bundles: the matrix unit does 2 x 65,667 operations a cycle.
        (4831838208, 12582912, 50331648, 36790 + 12582912 / 450 + 50331648 / 1450),
        (0, 0, 819e6, 1.5e6),  # a second of memory traffic has 1,500 million cycles
    ],
)
def test_a_kernel_counts_by_its_own_estimate_of_work(flops, scores, moved, cycles) -> None:
    counts = {"flops": flops, "transcendentals": scores, "bytes_accessed": int(moved)}
    text = ",".join(f'"{name}":"{count}"' for name, count in counts.items())
    call = '%y.1 = bf16[64,128,768]{2,1,0} custom-call(%x), custom_call_target="tpu_custom_call", '
    config = f'backend_config={{"custom_call_config":{{"body":"AB","cost_estimate":{{{text}}}}}}}'
    with_kernel = PROGRAM.replace("  %copy-start.1", f"  {call}{config}\n  %copy-start.1")
    more = program_cost(with_kernel, V5E).cycles - program_cost(PROGRAM, V5E).cycles
    assert more == pytest.approx(cycles, rel=1e-3)


@pytest.mark.parametrize("name", CHIPS)
def test_clock_and_peak_rate_belong_together(name) -> None:
    """The sheet's peak is a whole number of 128 x 128 units doing a multiply-add a cycle."""
    chip = CHIPS[name]
    peak = peak_flops(chip.kind, "bfloat16")
    assert peak is not None
    units = peak / chip.clock / (2 * 128 * 128)
    assert units == pytest.approx(round(units), rel=0.005)
    assert round(units) in (4, 8, 16)


def test_topologies_are_read() -> None:
    assert parse_topology("v5e:4x8") == ("v5e", (4, 8))
    assert parse_topology("v4:2x2x4") == ("v4", (2, 2, 4))
