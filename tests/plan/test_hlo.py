"""The reader of the compiler's text, on lines as XLA prints them."""

import types

import pytest

from jaxgen.errors import UserError
from jaxgen.plan import estimate, hlo, network, planner, profile, report, topology

TEXT = """HloModule jit_step, is_scheduled=true, num_partitions=16

%add.1 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(256)} parameter(0)
  %y = f32[]{:T(256)} parameter(1)
  ROOT %add.2 = f32[]{:T(256)} add(%x, %y)
}

%fused.1 (p0: bf16[16,8], p1: bf16[8,4]) -> bf16[16,4] {
  %p0 = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[8,4]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %conv.1 = bf16[16,4]{1,0:T(8,128)(2,1)} convolution(%p0, %p1), dim_labels=bf_io->bf, metadata={op_name="jit(step)/jvp(UNet)/in_1/conv/dot" stack_frame_id=4}
}

%fused.2 (p2: bf16[16,4]) -> bf16[4,16] {
  %p2 = bf16[16,4]{1,0} parameter(0)
  ROOT %transpose.1 = bf16[4,16]{1,0} transpose(%p2), dimensions={1,0}
}

%body.1 (arg: (s32[], f32[100])) -> (s32[], f32[100]) {
  %arg = (s32[], f32[100]{0}) parameter(0)
  %gte.1 = f32[100]{0} get-tuple-element(%arg), index=1
  %all-gather.1 = f32[400]{0} all-gather(%gte.1), channel_id=3, replica_groups=[4,4]<=[16], dimensions={0}, use_global_device_ids=true
  ROOT %tuple.1 = (s32[], f32[100]{0}) tuple(%gte.1, %gte.1), backend_config={"window_config":{"estimated_cycles":"10"}}
}

%cond.1 (arg.1: (s32[], f32[100])) -> pred[] {
  %arg.1 = (s32[], f32[100]{0}) parameter(0)
  ROOT %lt = pred[]{:T(512)} constant(true), backend_config={"window_config":{"estimated_cycles":"1"}}
}

%cond.2 (arg.2: (s32[], f32[100])) -> pred[] {
  %limit = s32[]{:T(128)} constant(4)
  %arg.2 = (s32[], f32[100]{0}) parameter(0)
  %gte.2 = s32[]{:T(128)} get-tuple-element(%arg.2), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%gte.2, %limit), direction=LT
}

ENTRY %main.1_spmd (a: bf16[16,8], b: bf16[8,4], c: (s32[], f32[100])) -> bf16[4,16] {
  %a = bf16[16,8]{1,0:T(8,128)(2,1)} parameter(0), metadata={op_name="state"}
  %b = bf16[8,4]{1,0:T(8,128)(2,1)S(1)} parameter(1)
  %c = (s32[], /*index=1*/f32[100]{0}) parameter(2)
  %fusion.1 = bf16[16,4]{1,0:T(8,128)(2,1)} fusion(%a, %b), kind=kOutput, calls=%fused.1, metadata={op_name="jit(step)/transpose(jvp(UNet))/in_1/conv/dot" stack_frame_id=4}, backend_config={"flag_configs":[],"window_config":{"estimated_cycles":"5000","iteration_bounds":["4","15"]}}
  %all-reduce-start.1 = (f32[300]{0}, f32[2,5]{1,0:T(2,128)}) all-reduce-start(%x.1, %y.1), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}}, use_global_device_ids=true, to_apply=%add.1, metadata={op_name="jit(step)/transpose(jvp(UNet))/norm/reduce"}
  %fusion.2 = bf16[4,16]{1,0} fusion(%fusion.1), kind=kLoop, calls=%fused.2, metadata={op_name="jit(step)/jvp(UNet)/mid/norm/mul"}, backend_config={"window_config":{"estimated_cycles":"700"}}
  %all-reduce-done.1 = (f32[300]{0}, f32[2,5]{1,0}) all-reduce-done(%all-reduce-start.1)
  %while.1 = (s32[], f32[100]{0}) while(%c), condition=%cond.1, body=%body.1, backend_config={"known_trip_count":{"n":"12"},"known_init_step":{"init":"0","step":"1"}}
  %while.2 = (s32[], f32[100]{0}) while(%while.1), condition=%cond.1, body=%body.1
  %while.3 = (s32[], f32[100]{0}) while(%while.2), condition=%cond.2, body=%body.1
  %permute = f32[64]{0} collective-permute(%e), channel_id=9, source_target_pairs={{0,1},{1,2},{2,3}}
  %scatter.1 = f32[25]{0} reduce-scatter(%f), channel_id=11, replica_groups=[1,16]<=[16], dimensions={0}, to_apply=%add.1
  %gather-start = ((f32[10]{0}, bf16[3]{0}), (f32[40]{0}, bf16[12]{0})) all-gather-start(%g, %h), channel_id=12, replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %send = (bf16[1024,8,128]{2,1,0:T(8,128)(2,1)}, u32[], token[]) send(%i, %after-all), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_target="{1,2}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %bitcast = bf16[4,16]{1,0} bitcast(%fusion.2)
}
"""  # noqa: E501
MODULE = hlo.parse(TEXT)
POD = topology.parse("v5e:16x16")


def named(name):
  return next(i for lines in MODULE.computations.values() for i in lines if i.name == name)


def test_what_an_instruction_is():
  fusion = named("fusion.1")
  assert fusion.opcode == "fusion" and fusion.cycles == 5000
  assert fusion.calls == ("fused.1",) and fusion.operands == ("a", "b")
  assert fusion.bytes == 16 * 4 * 2
  loop = named("while.1")
  assert loop.turns == 12 and set(loop.calls) == {"cond.1", "body.1"}
  assert named("c").bytes == 4 + 400 and MODULE.entry == "main.1_spmd"


def test_sizes_of_shapes():
  sizes = {"f32[]": 4, "pred[7]": 7, "s4[3]": 2, "token[]": 0, "f8e4m3fn[5]": 5, "c64[2]": 16}
  sizes |= {"bf16[8,64]{1,0:T(8,128)(2,1)}": 1024, "f32[<=16,2]{1,0}": 128}
  sizes |= {"(s32[], (u8[3]{0}, f64[2]))": 4 + 3 + 16}
  assert {shape: hlo.size(shape) for shape in sizes} == sizes


def test_loops_turn_as_often_as_the_compiler_tells_or_counts_or_we_know():
  # A turn of a loop: 10 cycles of its body, one of the first condition.
  assert MODULE.cycles() == 5000 + 700 + 12 * 11 + 1 * 11 + 4 * 10
  assert MODULE.cycles(turns=50) == 5000 + 700 + 12 * 11 + 50 * 11 + 4 * 10


def test_what_is_sent():
  result = {t.kind: t for t in network.transfers(MODULE)}
  total = {r["kind"]: r for r in network.summary(network.transfers(MODULE), None)}
  assert result["all-reduce"][1:4] == (300 * 4 + 40, 16, 1)
  assert result["all-reduce"].meanwhile == 700
  # In the loops 12 + 1 + 4 times 400 numbers, once 40 and 12 small ones.
  assert total["all-gather"]["count"] == 18
  assert total["all-gather"]["bytes"] == 17 * 1600 + 160 + 24
  assert result["reduce-scatter"].bytes == 25 * 4 * 16
  assert result["collective-permute"].bytes == 256
  assert result[network.SEND].bytes == 2**21
  assert total["all-reduce"]["seconds"] is None  # no topology, no speed


def test_how_long_sending_takes_by_hand():
  gigabyte = network.Transfer("all-reduce", 10**9, 256, 1, 0, 0, "")
  # Four links of 45 GB/s, each way once, 255 of 256 parts; eight hops along
  # either axis, both ways.
  want = 2 * 255 / 256 / 180 + 2 * 16 * 1e-6
  assert network.seconds(gigabyte, POD) == pytest.approx(want)
  # A slice of four by four has no rings: half the speed, three hops an axis.
  small = topology.parse("v5e:4x4")
  want = 2 * 15 / 16 / 90 + 2 * 6 * 1e-6
  assert network.seconds(gigabyte._replace(group=16), small) == (pytest.approx(want))
  # One axis of the pod alone; and 1/16 of a gigabyte to the other slice.
  gather = gigabyte._replace(kind="all-gather", group=16)
  assert network.seconds(gather, POD) == pytest.approx(15 / 16 / 90 + 8 * 1e-6)
  two = topology.parse("v5e:16x16:2")
  sent = network.Transfer(network.SEND, 10**9 // 16, 2, 1, 0, 0, "")
  assert network.seconds(sent, two) == pytest.approx(1 / 16 / 3.125)
  assert network.seconds(gigabyte._replace(group=1), POD) == 0


def test_work_hides_what_is_sent_meanwhile():
  [row] = [r for r in network.summary(network.transfers(MODULE), POD) if r["kind"] == "all-reduce"]
  hidden = 700 / POD.chip.clock
  assert row["exposed_seconds"] == pytest.approx(row["seconds"] - hidden)


def test_parts_fused_with_other_work_are_one_transfer():
  """As XLA prints sums that run beside a convolution; a loop sends anew."""
  reduce = (
    "f32[1000]{0} all-reduce(%p), channel_id=7, replica_groups="
    "mesh['axis_0'=16,'axis_1'=4,'axis_2'=2] {'axis_0', 'axis_1':(2)2}"
  )
  parts = "".join(
    f"%part.{n} (p: f32[1000]) -> f32[1000] {{\n  %all-reduce.{n} = {reduce}\n}}\n"
    for n in range(3)
  )
  lines = "".join(
    f"  %f.{n} = f32[1000]{{0}} fusion(%a), kind=kLoop, calls=%part.{n}, "
    f'backend_config={{"estimated_cycles":"{c}"}}\n'
    for n, c in enumerate((0, 5000, 0))
  )
  module = hlo.parse(f"{parts}ENTRY %main (a: f32[1000]) -> f32[1000] {{\n{lines}}}\n")
  [result] = network.transfers(module)
  assert result.bytes == 4000 and result.group == 32 and result.times == 1
  assert result.meanwhile == 5000
  [row] = network.summary([result], POD)
  hidden = 5000 / POD.chip.clock
  assert row["exposed_seconds"] == pytest.approx(row["seconds"] - hidden)


def test_sums_of_which_each_keeps_a_part():
  """As XLA prints them for TPUs; they may share a channel."""
  lines, fused = "", ""
  for n in range(2):
    fused += (
      f"%all-reduce-scatter.{n} (p: bf16[64,8]) -> bf16[4,8] {{\n"
      f"  %r.{n} = bf16[64,8]{{1,0}} all-reduce(%p), channel_id=1, "
      "replica_groups=[16,16]<=[256]\n"
      f"  %s.{n} = bf16[4,8]{{1,0}} dynamic-slice(%r.{n}, %i)\n}}\n"
    )
    lines += (
      f"  %f.{n} = bf16[4,8]{{1,0}} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.{n}\n"
    )
  module = hlo.parse(f"{fused}ENTRY %main (a: bf16[64,8]) -> bf16[4,8] {{\n{lines}}}\n")
  result = network.transfers(module)
  assert [t.kind for t in result] == ["reduce-scatter"] * 2
  assert {(t.bytes, t.group, t.meanwhile) for t in result} == {(1024, 16, 0)}


def test_one_thing_at_a_time_is_on_the_wires():
  one = network.Transfer("all-reduce", 10**6, 256, 1, 0, 10**6, "")
  delay = network.seconds(one, POD)
  cycles = round(delay * POD.chip.clock)
  # Two begin together and are wanted when the first is there: the second is
  # waited for. Wanted two times later, nothing is.
  both = [one._replace(end=cycles)] * 2
  assert network.waits(both, POD) == pytest.approx([0, delay], abs=1e-9)
  assert network.waits([one._replace(end=3 * cycles)] * 2, POD) == [0, 0]
  # What was waited for delays the rest, and gives others time to arrive.
  late = [
    one._replace(end=0),
    one._replace(start=0, end=cycles),
    one._replace(start=cycles, end=cycles),
  ]
  assert network.waits(late, POD) == pytest.approx([delay, 0, delay], abs=1e-9)
  # Between slices other wires are used.
  apart = [one._replace(end=cycles), network.Transfer(network.SEND, 1000, 2, 1, 0, cycles, "")]
  assert network.waits(apart, topology.parse("v5e:16x16:2")) == (pytest.approx([0, 0], abs=1e-9))


def test_what_cycles_are_spent_on():
  result = profile.shares(MODULE)
  assert result["kinds"]["convolutions and products"] == 5000
  assert result["kinds"]["copies and layouts"] == 700 + 13 * 11 + 40
  assert result["places"]["convolutions"] == 5000
  assert result["places"]["normalisation"] == 700
  assert result["directions"] == {"backward": 5000, "forward": 700, "beside": 13 * 11 + 40}
  assert [line["name"] for line in result["top"][:2]] == ["fusion.1", "fusion.2"]


def test_a_transformers_places():
  own = "jit(step)/transpose(jvp(DiT))/DiT.blocks/while/body"
  rows = {
    f"{own}/blocks/attn/qkv/dot_general": ("attention", "backward"),
    f"{own}/checkpoint/rematted_computation/blocks/norm_1/sub": ("normalisation", "forward again"),
    f"{own}/blocks/mlp/fc1/dot_general": ("perceptrons", "backward"),
    f"{own}/blocks/ada/dot_general": ("what conditions shift and scale", "backward"),
    f"{own}/jit(dynamic_index_in_dim)/squeeze": ("slices of a loop's arrays", "backward"),
  }
  for path, want in rows.items():
    i = hlo.parse_instruction("x", f'f32[] add(%a), metadata={{op_name="{path}"}}')
    assert (profile.place(i), profile.direction(i)) == want


@pytest.mark.parametrize(
  "message, want",
  [
    (
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, "
      "the total memory required for HLO temporaries (78.37G) exceeds available "
      "HBM (15.75G). HLO module: jit_step.",
      int(78.37 * 2**30),
    ),
    (
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in"
      " memory space hbm. Used 1.56T of 15.75G hbm.",
      int(1.56 * 2**40),
    ),
    ("INTERNAL: something (3G) exceeds", None),
  ],
)
def test_a_refusal_is_an_answer(message, want):
  assert estimate.bytes_refused(message) == want


@pytest.mark.parametrize(
  "total, what, words",
  [
    (3 << 30, "train", ["fits: needs 3 GiB of 4 GiB per chip"]),
    (5 << 30, "train", ["does not fit: needs 5 GiB", "fsdp", "remat"]),
    (5 << 30, "sample", ["does not fit: needs 5 GiB"]),
  ],
)
def test_the_answer_says_what_to_do(total, what, words):
  result = report.answer(
    {"what": what, "hbm": 4 << 30, "memory": {"total": total}, "programs": [{"refused": False}]}
  )
  assert all(word in result for word in words)
  assert ("fsdp" in result) == ("fsdp" in words)


def test_topologies_by_name():
  pods = topology.parse("v5p:8x8x16:3")
  assert (pods.kind, pods.edges, pods.slices) == ("v5p", (8, 8, 16), 3)
  assert topology.parse("v5e:16x8").rings == [(16, True), (8, False)]
  # What the matrix units of a chip do in a cycle, at the published clock.
  assert topology.CHIPS["v5e"].clock == pytest.approx(1.5e9, rel=0.01)
  assert topology.CHIPS["v5p"].clock == pytest.approx(1.75e9, rel=0.01)


def test_a_strange_topology_is_a_users_mistake():
  lines = {"v5e": "kind:shape", "v5:4x4": "did you mean", "v5e:4x4x4": "2 edges"}
  lines |= {"v5p:4x4": "3 edges", "v5e:0x4": "whole numbers", "v5e:4x4:0": "whole numbers"}
  for name, line in lines.items():
    with pytest.raises(UserError, match=line):
      topology.parse(name)


@pytest.mark.parametrize("fixed, slope, room", [(100, 7, 1000), (0, 3, 10), (500, 1, 512)])
def test_the_search_finds_the_largest_batch(fixed, slope, room, monkeypatch):
  def plan(request, progress):
    need = fixed + slope * request.per_chip
    return {
      "hbm": room,
      "per_chip": request.per_chip,
      "memory": {"total": need},
      "programs": [{"refused": need > room}],
    }

  monkeypatch.setattr(planner, "plan", plan)
  request = planner.Request(types.SimpleNamespace(accumulate=1), per_chip=8)
  tried = []
  got = planner.largest(request, plan(request, None), tried.append)
  assert got == (room - fixed) // slope and len(tried) <= planner.TRIES
