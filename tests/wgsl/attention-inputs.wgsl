// attention inputs, 8 x 12 x 197 x 64
// inputs of attention: a workgroup has 32 rows of the score matrix, and goes over its
// columns in blocks of 32. It makes the block's scores, a product; turns them into
// weights, which go to workgroup memory; and adds the weights' product with the block to the
// result.
struct Sizes {
  rows: u32,
  columns: u32,
  heads: u32,
  width: u32,
  depth: u32,
  out_width: u32,
  tiles: u32,
  groups: u32,
  keys: u32,
  scale: f32,
  x_offset: u32,
  x_batch: u32,
  x_head: u32,
  x_row: u32,
  w_offset: u32,
  w_batch: u32,
  w_head: u32,
  w_row: u32,
  y_offset: u32,
  y_batch: u32,
  y_head: u32,
  y_row: u32,
  z_offset: u32,
  z_batch: u32,
  z_head: u32,
  z_row: u32,
  out_offset: u32,
  out_batch: u32,
  out_head: u32,
  out_row: u32,
}
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> w: array<vec4f>;
@group(0) @binding(2) var<storage, read> y: array<vec4f>;
@group(0) @binding(3) var<storage, read> z: array<vec4f>;
@group(0) @binding(4) var<storage, read> logs: array<f32>;
@group(0) @binding(5) var<storage, read> deltas: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<vec4f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

// Infinities and NaN. WGSL lets a compiler assume that there are none, and they do: Mesa takes `x -
// x` for 0 and `x != x` for false, `max` forgets NaN everywhere, SwiftShader's exp(NaN) is infinite
// and its log(-2) is log(2). Where they count they are told by their bits, with which no compiler
// takes such liberties.

fn is_nan_(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn is_finite_(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
}

// A constant that is no finite number would be refused: a variable's value is none.
fn nan_() -> f32 {
  var bits = 0x7fc00000u;
  return bitcast<f32>(bits);
}

fn infinity_() -> f32 {
  var bits = 0x7f800000u;
  return bitcast<f32>(bits);
}

// A value that is of x: where x is NaN, so is it.
fn nan_or_(x: f32, value: f32) -> f32 {
  return select(value, x, is_nan_(x));
}

fn maximum_(a: f32, b: f32) -> f32 {
  return nan_or_(a, nan_or_(b, max(a, b)));
}

fn minimum_(a: f32, b: f32) -> f32 {
  return nan_or_(a, nan_or_(b, min(a, b)));
}

fn exp_(x: f32) -> f32 {
  return nan_or_(x, exp(x));
}

fn exp4_(x: vec4f) -> vec4f {
  return select(exp(x), x, (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}

fn log_(x: f32) -> f32 {
  let y = select(log(x), select(nan_(), -infinity_(), x == 0.0), x <= 0.0);
  return nan_or_(x, y);
}

// A sum of exponentials of what is at most 0, each at most 1: it is finite, or NaN or an infinity
// was among them.
fn total_(sum: f32) -> f32 {
  return select(nan_(), sum, is_finite_(sum));
}

const LOWEST = -3.402823466e38; // no finite score is lower

// What a workgroup makes: some rows of the score matrix of one head.
struct Tile {
  batch: u32, // of the batch and its heads, the how many-th
  first: u32, // the first row
}

fn tile_of(group: vec3u, groups: vec3u) -> Tile {
  // Beyond the last tile it is made again: a branch here would make every load slow on a software
  // GPU.
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  return Tile(at / sizes.tiles, at % sizes.tiles * 32u);
}

// The statistics belong to queries: to the rows of the score matrix, or to its columns where the
// rows are keys. The axis that has none gets 0.
fn of_row(x: f32) -> f32 {
  return select(x, 0.0, sizes.keys == 1u);
}

fn of_column(x: f32) -> f32 {
  return select(0.0, x, sizes.keys == 1u);
}

// The weights of the block, for each row a vec4 of each invocation.
var<workgroup> weights: array<vec4f, 256>;

// What the invocations of a row have found of it.
var<workgroup> shares: array<f32, 256>;

// The operands of a product, 16 steps at a time, in vec4 of rows or columns. A step is a vec4
// longer than it need be: the invocations that fill the memory would else meet in the same banks.
var<workgroup> left_tile: array<vec4f, 144>;
var<workgroup> right_tile: array<vec4f, 144>;
var<workgroup> block_tile: array<vec4f, 272>;

// Fills the u-th four steps of four rows, from step 4 k on.
fn stage_x(u: u32, k: u32, width: u32, start: u32, first: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let row0 = min(first + 4u * quad + 0u, sizes.rows - 1u);
  let base0 = (start + row0 * sizes.x_row) / 4u;
  let w0 = select(vec4f(), x[base0 + k + step], k + step < width);
  let row1 = min(first + 4u * quad + 1u, sizes.rows - 1u);
  let base1 = (start + row1 * sizes.x_row) / 4u;
  let w1 = select(vec4f(), x[base1 + k + step], k + step < width);
  let row2 = min(first + 4u * quad + 2u, sizes.rows - 1u);
  let base2 = (start + row2 * sizes.x_row) / 4u;
  let w2 = select(vec4f(), x[base2 + k + step], k + step < width);
  let row3 = min(first + 4u * quad + 3u, sizes.rows - 1u);
  let base3 = (start + row3 * sizes.x_row) / 4u;
  let w3 = select(vec4f(), x[base3 + k + step], k + step < width);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  left_tile[(4u * step + 0u) * 9u + quad] = v0;
  left_tile[(4u * step + 1u) * 9u + quad] = v1;
  left_tile[(4u * step + 2u) * 9u + quad] = v2;
  left_tile[(4u * step + 3u) * 9u + quad] = v3;
}

fn stage_w(u: u32, k: u32, width: u32, start: u32, first: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let row0 = min(first + 4u * quad + 0u, sizes.rows - 1u);
  let base0 = (start + row0 * sizes.w_row) / 4u;
  let w0 = select(vec4f(), w[base0 + k + step], k + step < width);
  let row1 = min(first + 4u * quad + 1u, sizes.rows - 1u);
  let base1 = (start + row1 * sizes.w_row) / 4u;
  let w1 = select(vec4f(), w[base1 + k + step], k + step < width);
  let row2 = min(first + 4u * quad + 2u, sizes.rows - 1u);
  let base2 = (start + row2 * sizes.w_row) / 4u;
  let w2 = select(vec4f(), w[base2 + k + step], k + step < width);
  let row3 = min(first + 4u * quad + 3u, sizes.rows - 1u);
  let base3 = (start + row3 * sizes.w_row) / 4u;
  let w3 = select(vec4f(), w[base3 + k + step], k + step < width);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  left_tile[(4u * step + 0u) * 9u + quad] = v0;
  left_tile[(4u * step + 1u) * 9u + quad] = v1;
  left_tile[(4u * step + 2u) * 9u + quad] = v2;
  left_tile[(4u * step + 3u) * 9u + quad] = v3;
}

// Fills the u-th four steps of four columns, likewise.
fn stage_y(u: u32, k: u32, width: u32, start: u32, j: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let column0 = min(j + 4u * quad + 0u, sizes.columns - 1u);
  let base0 = (start + column0 * sizes.y_row) / 4u;
  let w0 = select(vec4f(), y[base0 + k + step], k + step < width);
  let column1 = min(j + 4u * quad + 1u, sizes.columns - 1u);
  let base1 = (start + column1 * sizes.y_row) / 4u;
  let w1 = select(vec4f(), y[base1 + k + step], k + step < width);
  let column2 = min(j + 4u * quad + 2u, sizes.columns - 1u);
  let base2 = (start + column2 * sizes.y_row) / 4u;
  let w2 = select(vec4f(), y[base2 + k + step], k + step < width);
  let column3 = min(j + 4u * quad + 3u, sizes.columns - 1u);
  let base3 = (start + column3 * sizes.y_row) / 4u;
  let w3 = select(vec4f(), y[base3 + k + step], k + step < width);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  right_tile[(4u * step + 0u) * 9u + quad] = v0;
  right_tile[(4u * step + 1u) * 9u + quad] = v1;
  right_tile[(4u * step + 2u) * 9u + quad] = v2;
  right_tile[(4u * step + 3u) * 9u + quad] = v3;
}

fn stage_z(u: u32, k: u32, width: u32, start: u32, j: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let column0 = min(j + 4u * quad + 0u, sizes.columns - 1u);
  let base0 = (start + column0 * sizes.z_row) / 4u;
  let w0 = select(vec4f(), z[base0 + k + step], k + step < width);
  let column1 = min(j + 4u * quad + 1u, sizes.columns - 1u);
  let base1 = (start + column1 * sizes.z_row) / 4u;
  let w1 = select(vec4f(), z[base1 + k + step], k + step < width);
  let column2 = min(j + 4u * quad + 2u, sizes.columns - 1u);
  let base2 = (start + column2 * sizes.z_row) / 4u;
  let w2 = select(vec4f(), z[base2 + k + step], k + step < width);
  let column3 = min(j + 4u * quad + 3u, sizes.columns - 1u);
  let base3 = (start + column3 * sizes.z_row) / 4u;
  let w3 = select(vec4f(), z[base3 + k + step], k + step < width);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  right_tile[(4u * step + 0u) * 9u + quad] = v0;
  right_tile[(4u * step + 1u) * 9u + quad] = v1;
  right_tile[(4u * step + 2u) * 9u + quad] = v2;
  right_tile[(4u * step + 3u) * 9u + quad] = v3;
}

// Fills the u-th four steps of four columns of the result: here a step is a row of the block.
fn stage_block(u: u32, k: u32, start: u32, j: u32) {
  let step = u / 16u;
  let quad = u % 16u;
  let base = (start + min(4u * quad, sizes.out_width - 4u)) / 4u;
  let column0 = min(j + 4u * (k + step) + 0u, sizes.columns - 1u);
  let at0 = base + column0 * (sizes.y_row / 4u);
  let v0 = select(vec4f(), y[at0], k + step < 8u);
  let column1 = min(j + 4u * (k + step) + 1u, sizes.columns - 1u);
  let at1 = base + column1 * (sizes.y_row / 4u);
  let v1 = select(vec4f(), y[at1], k + step < 8u);
  let column2 = min(j + 4u * (k + step) + 2u, sizes.columns - 1u);
  let at2 = base + column2 * (sizes.y_row / 4u);
  let v2 = select(vec4f(), y[at2], k + step < 8u);
  let column3 = min(j + 4u * (k + step) + 3u, sizes.columns - 1u);
  let at3 = base + column3 * (sizes.y_row / 4u);
  let v3 = select(vec4f(), y[at3], k + step < 8u);
  block_tile[(4u * step + 0u) * 17u + quad] = v0;
  block_tile[(4u * step + 1u) * 17u + quad] = v1;
  block_tile[(4u * step + 2u) * 17u + quad] = v2;
  block_tile[(4u * step + 3u) * 17u + quad] = v3;
}

// The invocations load together what any of them needs, and share it through workgroup memory.
@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = tile_of(group, groups);
  let batch = tile.batch;
  let first = tile.first;
  let right = index % 8u;
  let below = index / 8u;
  let x_start = sizes.x_offset + batch / sizes.heads * sizes.x_batch +
    batch % sizes.heads * sizes.x_head;
  let w_start = sizes.w_offset + batch / sizes.heads * sizes.w_batch +
    batch % sizes.heads * sizes.w_head;
  let y_start = sizes.y_offset + batch / sizes.heads * sizes.y_batch +
    batch % sizes.heads * sizes.y_head;
  let z_start = sizes.z_offset + batch / sizes.heads * sizes.z_batch +
    batch % sizes.heads * sizes.z_head;
  let out_start = sizes.out_offset + batch / sizes.heads * sizes.out_batch +
    batch % sizes.heads * sizes.out_head;
  let local_row0 = 4u * (below + 0u) + 0u;
  let row0 = min(first + local_row0, sizes.rows - 1u);
  let local_row1 = 4u * (below + 0u) + 1u;
  let row1 = min(first + local_row1, sizes.rows - 1u);
  let local_row2 = 4u * (below + 0u) + 2u;
  let row2 = min(first + local_row2, sizes.rows - 1u);
  let local_row3 = 4u * (below + 0u) + 3u;
  let row3 = min(first + local_row3, sizes.rows - 1u);
  let out_col0 = min(4u * (right + 0u), sizes.out_width - 4u);
  let out_col1 = min(4u * (right + 8u), sizes.out_width - 4u);
  let log0 = of_row(logs[batch * sizes.rows + row0]);
  let delta0 = of_row(deltas[batch * sizes.rows + row0]);
  let log1 = of_row(logs[batch * sizes.rows + row1]);
  let delta1 = of_row(deltas[batch * sizes.rows + row1]);
  let log2 = of_row(logs[batch * sizes.rows + row2]);
  let delta2 = of_row(deltas[batch * sizes.rows + row2]);
  let log3 = of_row(logs[batch * sizes.rows + row3]);
  let delta3 = of_row(deltas[batch * sizes.rows + row3]);
  var out0_0 = vec4f();
  var out0_1 = vec4f();
  var out1_0 = vec4f();
  var out1_1 = vec4f();
  var out2_0 = vec4f();
  var out2_1 = vec4f();
  var out3_0 = vec4f();
  var out3_1 = vec4f();

  let start = 0u;
  let limit = sizes.columns;
  for (var j = start; j < limit; j += 32u) {
    let column = vec4u(j + 4u * right) + vec4u(0u, 1u, 2u, 3u);
    let column0 = min(column.x, sizes.columns - 1u);
    let column1 = min(column.y, sizes.columns - 1u);
    let column2 = min(column.z, sizes.columns - 1u);
    let column3 = min(column.w, sizes.columns - 1u);

    // The block's scores.
    var score0 = vec4f();
    var score1 = vec4f();
    var score2 = vec4f();
    var score3 = vec4f();
    for (var k = 0u; k < sizes.width; k += 4u) {
      workgroupBarrier();
      for (var u = index; u < 32u; u += 64u) {
        stage_x(u, k, sizes.width, x_start, first);
      }
      for (var u = index; u < 32u; u += 64u) {
        stage_y(u, k, sizes.width, y_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < 16u; step += 4u) {
        let x0_0 = left_tile[(step + 0u) * 9u + below + 0u];
        let x1_0 = left_tile[(step + 1u) * 9u + below + 0u];
        let x2_0 = left_tile[(step + 2u) * 9u + below + 0u];
        let x3_0 = left_tile[(step + 3u) * 9u + below + 0u];
        let y0 = right_tile[(step + 0u) * 9u + right];
        let y1 = right_tile[(step + 1u) * 9u + right];
        let y2 = right_tile[(step + 2u) * 9u + right];
        let y3 = right_tile[(step + 3u) * 9u + right];
        score0 = fma(vec4f(x3_0[0]), y3, fma(vec4f(x2_0[0]), y2,
          fma(vec4f(x1_0[0]), y1, fma(vec4f(x0_0[0]), y0, score0))));
        score1 = fma(vec4f(x3_0[1]), y3, fma(vec4f(x2_0[1]), y2,
          fma(vec4f(x1_0[1]), y1, fma(vec4f(x0_0[1]), y0, score1))));
        score2 = fma(vec4f(x3_0[2]), y3, fma(vec4f(x2_0[2]), y2,
          fma(vec4f(x1_0[2]), y1, fma(vec4f(x0_0[2]), y0, score2))));
        score3 = fma(vec4f(x3_0[3]), y3, fma(vec4f(x2_0[3]), y2,
          fma(vec4f(x1_0[3]), y1, fma(vec4f(x0_0[3]), y0, score3))));
      }
    }

    // The gradients of the block's weights.
    var slope0 = vec4f();
    var slope1 = vec4f();
    var slope2 = vec4f();
    var slope3 = vec4f();
    for (var k = 0u; k < sizes.depth; k += 4u) {
      workgroupBarrier();
      for (var u = index; u < 32u; u += 64u) {
        stage_w(u, k, sizes.depth, w_start, first);
      }
      for (var u = index; u < 32u; u += 64u) {
        stage_z(u, k, sizes.depth, z_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < 16u; step += 4u) {
        let w0_0 = left_tile[(step + 0u) * 9u + below + 0u];
        let w1_0 = left_tile[(step + 1u) * 9u + below + 0u];
        let w2_0 = left_tile[(step + 2u) * 9u + below + 0u];
        let w3_0 = left_tile[(step + 3u) * 9u + below + 0u];
        let z0 = right_tile[(step + 0u) * 9u + right];
        let z1 = right_tile[(step + 1u) * 9u + right];
        let z2 = right_tile[(step + 2u) * 9u + right];
        let z3 = right_tile[(step + 3u) * 9u + right];
        slope0 = fma(vec4f(w3_0[0]), z3, fma(vec4f(w2_0[0]), z2,
          fma(vec4f(w1_0[0]), z1, fma(vec4f(w0_0[0]), z0, slope0))));
        slope1 = fma(vec4f(w3_0[1]), z3, fma(vec4f(w2_0[1]), z2,
          fma(vec4f(w1_0[1]), z1, fma(vec4f(w0_0[1]), z0, slope1))));
        slope2 = fma(vec4f(w3_0[2]), z3, fma(vec4f(w2_0[2]), z2,
          fma(vec4f(w1_0[2]), z1, fma(vec4f(w0_0[2]), z0, slope2))));
        slope3 = fma(vec4f(w3_0[3]), z3, fma(vec4f(w2_0[3]), z2,
          fma(vec4f(w1_0[3]), z1, fma(vec4f(w0_0[3]), z0, slope3))));
      }
    }

    let log = vec4f(
      of_column(logs[batch * sizes.columns + column0]),
      of_column(logs[batch * sizes.columns + column1]),
      of_column(logs[batch * sizes.columns + column2]),
      of_column(logs[batch * sizes.columns + column3]),
    );
    let delta = vec4f(
      of_column(deltas[batch * sizes.columns + column0]),
      of_column(deltas[batch * sizes.columns + column1]),
      of_column(deltas[batch * sizes.columns + column2]),
      of_column(deltas[batch * sizes.columns + column3]),
    );

    // What is not seen has no weight at all: a score, however small, would have some.
    let known = column < vec4u(sizes.columns);
    let seen0 = known;
    let e0 = score0 * sizes.scale;
    let seen1 = known;
    let e1 = score1 * sizes.scale;
    let seen2 = known;
    let e2 = score2 * sizes.scale;
    let seen3 = known;
    let e3 = score3 * sizes.scale;
    let weight0 = sizes.scale * exp(e0 - (log0 + log));
    let p0 = select(vec4f(), weight0 * (slope0 - (delta0 + delta)), seen0);
    let weight1 = sizes.scale * exp(e1 - (log1 + log));
    let p1 = select(vec4f(), weight1 * (slope1 - (delta1 + delta)), seen1);
    let weight2 = sizes.scale * exp(e2 - (log2 + log));
    let p2 = select(vec4f(), weight2 * (slope2 - (delta2 + delta)), seen2);
    let weight3 = sizes.scale * exp(e3 - (log3 + log));
    let p3 = select(vec4f(), weight3 * (slope3 - (delta3 + delta)), seen3);
    workgroupBarrier();
    weights[local_row0 * 8u + right] = p0;
    weights[local_row1 * 8u + right] = p1;
    weights[local_row2 * 8u + right] = p2;
    weights[local_row3 * 8u + right] = p3;
    workgroupBarrier();

    // The weights' product with the block is added to the result.
    for (var k = 0u; k < 8u; k += 4u) {
      workgroupBarrier();
      for (var u = index; u < 64u; u += 64u) {
        stage_block(u, k, y_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < 16u; step += 4u) {
        let p_0 = weights[local_row0 * 8u + k + step / 4u];
        let p_1 = weights[local_row1 * 8u + k + step / 4u];
        let p_2 = weights[local_row2 * 8u + k + step / 4u];
        let p_3 = weights[local_row3 * 8u + k + step / 4u];
        let b0_0 = block_tile[(step + 0u) * 17u + right + 0u];
        let b0_1 = block_tile[(step + 0u) * 17u + right + 8u];
        let b1_0 = block_tile[(step + 1u) * 17u + right + 0u];
        let b1_1 = block_tile[(step + 1u) * 17u + right + 8u];
        let b2_0 = block_tile[(step + 2u) * 17u + right + 0u];
        let b2_1 = block_tile[(step + 2u) * 17u + right + 8u];
        let b3_0 = block_tile[(step + 3u) * 17u + right + 0u];
        let b3_1 = block_tile[(step + 3u) * 17u + right + 8u];
        out0_0 = fma(vec4f(p_0.w), b3_0, fma(vec4f(p_0.z), b2_0,
          fma(vec4f(p_0.y), b1_0, fma(vec4f(p_0.x), b0_0, out0_0))));
        out1_0 = fma(vec4f(p_1.w), b3_0, fma(vec4f(p_1.z), b2_0,
          fma(vec4f(p_1.y), b1_0, fma(vec4f(p_1.x), b0_0, out1_0))));
        out2_0 = fma(vec4f(p_2.w), b3_0, fma(vec4f(p_2.z), b2_0,
          fma(vec4f(p_2.y), b1_0, fma(vec4f(p_2.x), b0_0, out2_0))));
        out3_0 = fma(vec4f(p_3.w), b3_0, fma(vec4f(p_3.z), b2_0,
          fma(vec4f(p_3.y), b1_0, fma(vec4f(p_3.x), b0_0, out3_0))));
        out0_1 = fma(vec4f(p_0.w), b3_1, fma(vec4f(p_0.z), b2_1,
          fma(vec4f(p_0.y), b1_1, fma(vec4f(p_0.x), b0_1, out0_1))));
        out1_1 = fma(vec4f(p_1.w), b3_1, fma(vec4f(p_1.z), b2_1,
          fma(vec4f(p_1.y), b1_1, fma(vec4f(p_1.x), b0_1, out1_1))));
        out2_1 = fma(vec4f(p_2.w), b3_1, fma(vec4f(p_2.z), b2_1,
          fma(vec4f(p_2.y), b1_1, fma(vec4f(p_2.x), b0_1, out2_1))));
        out3_1 = fma(vec4f(p_3.w), b3_1, fma(vec4f(p_3.z), b2_1,
          fma(vec4f(p_3.y), b1_1, fma(vec4f(p_3.x), b0_1, out3_1))));
      }
    }
  }

  if (first + local_row0 < sizes.rows) {
    out[(out_start + row0 * sizes.out_row + out_col0) / 4u] = out0_0;
    out[(out_start + row0 * sizes.out_row + out_col1) / 4u] = out0_1;
  }
  if (first + local_row1 < sizes.rows) {
    out[(out_start + row1 * sizes.out_row + out_col0) / 4u] = out1_0;
    out[(out_start + row1 * sizes.out_row + out_col1) / 4u] = out1_1;
  }
  if (first + local_row2 < sizes.rows) {
    out[(out_start + row2 * sizes.out_row + out_col0) / 4u] = out2_0;
    out[(out_start + row2 * sizes.out_row + out_col1) / 4u] = out2_1;
  }
  if (first + local_row3 < sizes.rows) {
    out[(out_start + row3 * sizes.out_row + out_col0) / 4u] = out3_0;
    out[(out_start + row3 * sizes.out_row + out_col1) / 4u] = out3_1;
  }
}
