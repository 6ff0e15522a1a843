// out[b] = a[b] × c[b] where a lies along k and c along k (c is a transpose) or along n, in whole vec4. An invocation
// makes 8 rows of 8 neighbouring columns in registers, from 16 vec4 loads for every four steps along k: a software
// adapter is bound by the number of loads, and this is a third of what matmul.wgsl needs.
override C_ALONG_K: bool;
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
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn load_c(at: u32) -> vec4f {
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
  let row = (at / sizes.tiles_n % sizes.tiles_m * LANES_Y + lane.y) * 8u;
  let col = (at % sizes.tiles_n * LANES_X + lane.x) * 8u;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;

  // Past the ragged edge the last row and columns are read again, and not stored.
  let last_row = sizes.m - 1u;
  let a0 = (a_start + min(row, last_row) * sizes.a_row) / 4u;
  let a1 = (a_start + min(row + 1u, last_row) * sizes.a_row) / 4u;
  let a2 = (a_start + min(row + 2u, last_row) * sizes.a_row) / 4u;
  let a3 = (a_start + min(row + 3u, last_row) * sizes.a_row) / 4u;
  let a4 = (a_start + min(row + 4u, last_row) * sizes.a_row) / 4u;
  let a5 = (a_start + min(row + 5u, last_row) * sizes.a_row) / 4u;
  let a6 = (a_start + min(row + 6u, last_row) * sizes.a_row) / 4u;
  let a7 = (a_start + min(row + 7u, last_row) * sizes.a_row) / 4u;

  // Named one by one: a software adapter keeps an array that a loop indexes in memory, at half the speed.
  var l0 = vec4f();
  var h0 = vec4f();
  var l1 = vec4f();
  var h1 = vec4f();
  var l2 = vec4f();
  var h2 = vec4f();
  var l3 = vec4f();
  var h3 = vec4f();
  var l4 = vec4f();
  var h4 = vec4f();
  var l5 = vec4f();
  var h5 = vec4f();
  var l6 = vec4f();
  var h6 = vec4f();
  var l7 = vec4f();
  var h7 = vec4f();
  if (C_ALONG_K) {
    let last_col = sizes.n - 1u;
    let at0 = (c_start + min(col, last_col) * sizes.c_col) / 4u;
    let at1 = (c_start + min(col + 1u, last_col) * sizes.c_col) / 4u;
    let at2 = (c_start + min(col + 2u, last_col) * sizes.c_col) / 4u;
    let at3 = (c_start + min(col + 3u, last_col) * sizes.c_col) / 4u;
    let at4 = (c_start + min(col + 4u, last_col) * sizes.c_col) / 4u;
    let at5 = (c_start + min(col + 5u, last_col) * sizes.c_col) / 4u;
    let at6 = (c_start + min(col + 6u, last_col) * sizes.c_col) / 4u;
    let at7 = (c_start + min(col + 7u, last_col) * sizes.c_col) / 4u;
    for (var k = 0u; k < sizes.k / 4u; k++) {
      let c0 = load_c(at0 + k);
      let c1 = load_c(at1 + k);
      let c2 = load_c(at2 + k);
      let c3 = load_c(at3 + k);
      let c4 = load_c(at4 + k);
      let c5 = load_c(at5 + k);
      let c6 = load_c(at6 + k);
      let c7 = load_c(at7 + k);
      let x0 = a[a0 + k];
      l0 += vec4f(dot(x0, c0), dot(x0, c1), dot(x0, c2), dot(x0, c3));
      h0 += vec4f(dot(x0, c4), dot(x0, c5), dot(x0, c6), dot(x0, c7));
      let x1 = a[a1 + k];
      l1 += vec4f(dot(x1, c0), dot(x1, c1), dot(x1, c2), dot(x1, c3));
      h1 += vec4f(dot(x1, c4), dot(x1, c5), dot(x1, c6), dot(x1, c7));
      let x2 = a[a2 + k];
      l2 += vec4f(dot(x2, c0), dot(x2, c1), dot(x2, c2), dot(x2, c3));
      h2 += vec4f(dot(x2, c4), dot(x2, c5), dot(x2, c6), dot(x2, c7));
      let x3 = a[a3 + k];
      l3 += vec4f(dot(x3, c0), dot(x3, c1), dot(x3, c2), dot(x3, c3));
      h3 += vec4f(dot(x3, c4), dot(x3, c5), dot(x3, c6), dot(x3, c7));
      let x4 = a[a4 + k];
      l4 += vec4f(dot(x4, c0), dot(x4, c1), dot(x4, c2), dot(x4, c3));
      h4 += vec4f(dot(x4, c4), dot(x4, c5), dot(x4, c6), dot(x4, c7));
      let x5 = a[a5 + k];
      l5 += vec4f(dot(x5, c0), dot(x5, c1), dot(x5, c2), dot(x5, c3));
      h5 += vec4f(dot(x5, c4), dot(x5, c5), dot(x5, c6), dot(x5, c7));
      let x6 = a[a6 + k];
      l6 += vec4f(dot(x6, c0), dot(x6, c1), dot(x6, c2), dot(x6, c3));
      h6 += vec4f(dot(x6, c4), dot(x6, c5), dot(x6, c6), dot(x6, c7));
      let x7 = a[a7 + k];
      l7 += vec4f(dot(x7, c0), dot(x7, c1), dot(x7, c2), dot(x7, c3));
      h7 += vec4f(dot(x7, c4), dot(x7, c5), dot(x7, c6), dot(x7, c7));
    }
  } else {
    let left = (c_start + min(col, sizes.n - 4u)) / 4u;
    let right = (c_start + min(col + 4u, sizes.n - 4u)) / 4u;
    let step = sizes.c_row / 4u;
    for (var k = 0u; k < sizes.k / 4u; k++) {
      let at = k * 4u * step;
      let c0 = load_c(left + at + 0u * step);
      let d0 = load_c(right + at + 0u * step);
      let c1 = load_c(left + at + 1u * step);
      let d1 = load_c(right + at + 1u * step);
      let c2 = load_c(left + at + 2u * step);
      let d2 = load_c(right + at + 2u * step);
      let c3 = load_c(left + at + 3u * step);
      let d3 = load_c(right + at + 3u * step);
      let x0 = a[a0 + k];
      l0 += x0.x * c0 + x0.y * c1 + x0.z * c2 + x0.w * c3;
      h0 += x0.x * d0 + x0.y * d1 + x0.z * d2 + x0.w * d3;
      let x1 = a[a1 + k];
      l1 += x1.x * c0 + x1.y * c1 + x1.z * c2 + x1.w * c3;
      h1 += x1.x * d0 + x1.y * d1 + x1.z * d2 + x1.w * d3;
      let x2 = a[a2 + k];
      l2 += x2.x * c0 + x2.y * c1 + x2.z * c2 + x2.w * c3;
      h2 += x2.x * d0 + x2.y * d1 + x2.z * d2 + x2.w * d3;
      let x3 = a[a3 + k];
      l3 += x3.x * c0 + x3.y * c1 + x3.z * c2 + x3.w * c3;
      h3 += x3.x * d0 + x3.y * d1 + x3.z * d2 + x3.w * d3;
      let x4 = a[a4 + k];
      l4 += x4.x * c0 + x4.y * c1 + x4.z * c2 + x4.w * c3;
      h4 += x4.x * d0 + x4.y * d1 + x4.z * d2 + x4.w * d3;
      let x5 = a[a5 + k];
      l5 += x5.x * c0 + x5.y * c1 + x5.z * c2 + x5.w * c3;
      h5 += x5.x * d0 + x5.y * d1 + x5.z * d2 + x5.w * d3;
      let x6 = a[a6 + k];
      l6 += x6.x * c0 + x6.y * c1 + x6.z * c2 + x6.w * c3;
      h6 += x6.x * d0 + x6.y * d1 + x6.z * d2 + x6.w * d3;
      let x7 = a[a7 + k];
      l7 += x7.x * c0 + x7.y * c1 + x7.z * c2 + x7.w * c3;
      h7 += x7.x * d0 + x7.y * d1 + x7.z * d2 + x7.w * d3;
    }
  }

  let start = batch * sizes.m * sizes.n;
  store(start, row, col, l0, h0);
  store(start, row + 1u, col, l1, h1);
  store(start, row + 2u, col, l2, h2);
  store(start, row + 3u, col, l3, h3);
  store(start, row + 4u, col, l4, h4);
  store(start, row + 5u, col, l5, h5);
  store(start, row + 6u, col, l6, h6);
  store(start, row + 7u, col, l7, h7);
}

fn store(start: u32, row: u32, col: u32, low: vec4f, high: vec4f) {
  if (row >= sizes.m) {
    return;
  }
  let at = start + row * sizes.n + col;
  for (var j = 0u; j < 4u; j++) {
    if (col + j < sizes.n) {
      out[at + j] = low[j];
    }
    if (col + 4u + j < sizes.n) {
      out[at + 4u + j] = high[j];
    }
  }
}
