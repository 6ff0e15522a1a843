// out[b] = a[b] × c[b], with a of [m, k], c of [k, n], each read through its own strides, so that a transposed or
// sliced operand needs no copy. An invocation makes 4 rows of 8 columns, LANES_X apart. Nothing is shared in workgroup
// memory: the tile is in registers, and the loads of a row of lanes are neighbours.
override LANES_X: u32;
override LANES_Y: u32;

struct Sizes {
  m: u32,
  n: u32,
  k: u32,
  tiles_m: u32,
  tiles_n: u32,
  groups: u32,
  batch1: u32,
  batch2: u32,
  a_offset: u32,
  a_batch0: u32,
  a_batch1: u32,
  a_batch2: u32,
  a_row: u32,
  a_col: u32,
  c_offset: u32,
  c_batch0: u32,
  c_batch1: u32,
  c_batch2: u32,
  c_row: u32,
  c_col: u32,
}
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> c: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn load_c(at: u32) -> f32 {
  return c[at];
}

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let at = group.y * groups.x + group.x;
  if (at >= sizes.groups) {
    return;
  }
  let batch = at / (sizes.tiles_m * sizes.tiles_n);
  let row = (at / sizes.tiles_n % sizes.tiles_m * LANES_Y + lane.y) * 4u;
  let col = at % sizes.tiles_n * LANES_X * 8u + lane.x;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;

  // Past the ragged edge the last row and column are read again, and not stored.
  let rows = min(vec4u(row, row + 1u, row + 2u, row + 3u), vec4u(sizes.m - 1u));
  let low = min(col + vec4u(0u, 1u, 2u, 3u) * LANES_X, vec4u(sizes.n - 1u));
  let high = min(col + vec4u(4u, 5u, 6u, 7u) * LANES_X, vec4u(sizes.n - 1u));
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;
  var at_a = a_start + rows * sizes.a_row;
  var at_low = c_start + low * sizes.c_col;
  var at_high = c_start + high * sizes.c_col;

  var low0 = vec4f();
  var low1 = vec4f();
  var low2 = vec4f();
  var low3 = vec4f();
  var high0 = vec4f();
  var high1 = vec4f();
  var high2 = vec4f();
  var high3 = vec4f();
  for (var k = 0u; k < sizes.k; k++) {
    let x = vec4f(a[at_a.x], a[at_a.y], a[at_a.z], a[at_a.w]);
    let l = vec4f(load_c(at_low.x), load_c(at_low.y), load_c(at_low.z), load_c(at_low.w));
    let h = vec4f(load_c(at_high.x), load_c(at_high.y), load_c(at_high.z), load_c(at_high.w));
    low0 += x.x * l;
    low1 += x.y * l;
    low2 += x.z * l;
    low3 += x.w * l;
    high0 += x.x * h;
    high1 += x.y * h;
    high2 += x.z * h;
    high3 += x.w * h;
    at_a += sizes.a_col;
    at_low += sizes.c_row;
    at_high += sizes.c_row;
  }

  let start = batch * sizes.m * sizes.n;
  store(start, row, col, low0, high0);
  store(start, row + 1u, col, low1, high1);
  store(start, row + 2u, col, low2, high2);
  store(start, row + 3u, col, low3, high3);
}

fn store(start: u32, row: u32, col: u32, low: vec4f, high: vec4f) {
  if (row >= sizes.m) {
    return;
  }
  for (var j = 0u; j < 4u; j++) {
    let left = col + j * LANES_X;
    if (left < sizes.n) {
      out[start + row * sizes.n + left] = low[j];
    }
    let right = left + 4u * LANES_X;
    if (right < sizes.n) {
      out[start + row * sizes.n + right] = high[j];
    }
  }
}
