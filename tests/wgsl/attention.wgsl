// attention forward, 8 x 12 x 197 x 64
// forward of attention: 32 rows of a workgroup, 32 columns at a time.
// Infinities and NaN. WGSL lets a compiler assume that there are none, and they do: Mesa takes `x - x` for 0 and `x != x`
// for false, `max` forgets NaN everywhere, SwiftShader's exp(NaN) is infinite and its log(-2) is log(2). Where they count
// they are told by their bits, with which no compiler takes such liberties.

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

// A sum of exponentials of what is at most 0, each at most 1: it is finite, or NaN or an infinity was among them.
fn total_(sum: f32) -> f32 {
  return select(nan_(), sum, is_finite_(sum));
}

@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read> y: array<vec4f>;
@group(0) @binding(2) var<storage, read> z: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> logs: array<f32>;
const LOWEST = -3.402823466e38; // no finite score is lower

// A statistic of the rows, or of the columns, if those are the queries; else there is none, and this is 0.
fn of_rows(x: f32) -> f32 {
  return select(x, 0.0, sizes.keys == 1u);
}
fn of_columns(x: f32) -> f32 {
  return select(0.0, x, sizes.keys == 1u);
}

var<workgroup> weights: array<vec4f, 256>;
var<workgroup> shares: array<f32, 256>;
var<workgroup> left_tile: array<vec4f, 144>;
var<workgroup> right_tile: array<vec4f, 144>;
var<workgroup> block_tile: array<vec4f, 272>;
fn stage_x(u: u32, k: u32, end: u32, x_start: u32, first: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let w0 = select(vec4f(), x[(x_start + (min(first + (4u * quad + 0u), sizes.rows - 1u)) * sizes.x_row) / 4u + (k + step)], k + step < end);
  let w1 = select(vec4f(), x[(x_start + (min(first + (4u * quad + 1u), sizes.rows - 1u)) * sizes.x_row) / 4u + (k + step)], k + step < end);
  let w2 = select(vec4f(), x[(x_start + (min(first + (4u * quad + 2u), sizes.rows - 1u)) * sizes.x_row) / 4u + (k + step)], k + step < end);
  let w3 = select(vec4f(), x[(x_start + (min(first + (4u * quad + 3u), sizes.rows - 1u)) * sizes.x_row) / 4u + (k + step)], k + step < end);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  left_tile[(4u * step + 0u) * 9u + quad] = v0;
  left_tile[(4u * step + 1u) * 9u + quad] = v1;
  left_tile[(4u * step + 2u) * 9u + quad] = v2;
  left_tile[(4u * step + 3u) * 9u + quad] = v3;
}
fn stage_y(u: u32, k: u32, end: u32, y_start: u32, j: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let w0 = select(vec4f(), y[(y_start + (min(j + (4u * quad + 0u), sizes.columns - 1u)) * sizes.y_row) / 4u + (k + step)], k + step < end);
  let w1 = select(vec4f(), y[(y_start + (min(j + (4u * quad + 1u), sizes.columns - 1u)) * sizes.y_row) / 4u + (k + step)], k + step < end);
  let w2 = select(vec4f(), y[(y_start + (min(j + (4u * quad + 2u), sizes.columns - 1u)) * sizes.y_row) / 4u + (k + step)], k + step < end);
  let w3 = select(vec4f(), y[(y_start + (min(j + (4u * quad + 3u), sizes.columns - 1u)) * sizes.y_row) / 4u + (k + step)], k + step < end);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  right_tile[(4u * step + 0u) * 9u + quad] = v0;
  right_tile[(4u * step + 1u) * 9u + quad] = v1;
  right_tile[(4u * step + 2u) * 9u + quad] = v2;
  right_tile[(4u * step + 3u) * 9u + quad] = v3;
}
fn stage_b(u: u32, k: u32, end: u32, z_start: u32, j: u32) {
  let step = u / 16u;
  let quad = u % 16u;
  let v0 = select(vec4f(), z[(z_start + min((4u * quad + 0u), sizes.cols - 4u)) / 4u + min(j + 4u * (k + step) + 0u, sizes.columns - 1u) * (sizes.z_row / 4u)], k + step < end);
  let v1 = select(vec4f(), z[(z_start + min((4u * quad + 0u), sizes.cols - 4u)) / 4u + min(j + 4u * (k + step) + 1u, sizes.columns - 1u) * (sizes.z_row / 4u)], k + step < end);
  let v2 = select(vec4f(), z[(z_start + min((4u * quad + 0u), sizes.cols - 4u)) / 4u + min(j + 4u * (k + step) + 2u, sizes.columns - 1u) * (sizes.z_row / 4u)], k + step < end);
  let v3 = select(vec4f(), z[(z_start + min((4u * quad + 0u), sizes.cols - 4u)) / 4u + min(j + 4u * (k + step) + 3u, sizes.columns - 1u) * (sizes.z_row / 4u)], k + step < end);
  block_tile[(4u * step + 0u) * 17u + quad] = v0;
  block_tile[(4u * step + 1u) * 17u + quad] = v1;
  block_tile[(4u * step + 2u) * 17u + quad] = v2;
  block_tile[(4u * step + 3u) * 17u + quad] = v3;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,

) {
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  let batch = at / sizes.tiles;
  let first = at % sizes.tiles * 32u;
  let right = index % 8u;
  let below = index / 8u;
  let x_start = sizes.x_offset + batch / sizes.heads * sizes.x_batch + batch % sizes.heads * sizes.x_head;
  let y_start = sizes.y_offset + batch / sizes.heads * sizes.y_batch + batch % sizes.heads * sizes.y_head;
  let z_start = sizes.z_offset + batch / sizes.heads * sizes.z_batch + batch % sizes.heads * sizes.z_head;
  let out_start = sizes.out_offset + batch / sizes.heads * sizes.out_batch + batch % sizes.heads * sizes.out_head;
  let r0 = min(first + 4u * (below + 0u) + 0u, sizes.rows - 1u);
  let r1 = min(first + 4u * (below + 0u) + 1u, sizes.rows - 1u);
  let r2 = min(first + 4u * (below + 0u) + 2u, sizes.rows - 1u);
  let r3 = min(first + 4u * (below + 0u) + 3u, sizes.rows - 1u);
  let d0 = min(4u * (right + 0u), sizes.cols - 4u);
  let d4 = min(4u * (right + 8u), sizes.cols - 4u);

  var most0 = LOWEST;
  var total0 = 0.0;
  var most1 = LOWEST;
  var total1 = 0.0;
  var most2 = LOWEST;
  var total2 = 0.0;
  var most3 = LOWEST;
  var total3 = 0.0;
  var o0_0 = vec4f();
  var o0_1 = vec4f();
  var o1_0 = vec4f();
  var o1_1 = vec4f();
  var o2_0 = vec4f();
  var o2_1 = vec4f();
  var o3_0 = vec4f();
  var o3_1 = vec4f();
  let start = 0u;
  let limit = sizes.columns;
  for (var j = start; j < limit; j += 32u) {
    let other = vec4u(j + 4u * right) + vec4u(0u, 1u, 2u, 3u);
    let c0 = min(other.x, sizes.columns - 1u);
    let c1 = min(other.y, sizes.columns - 1u);
    let c2 = min(other.z, sizes.columns - 1u);
    let c3 = min(other.w, sizes.columns - 1u);
    var s0 = vec4f();
    var s1 = vec4f();
    var s2 = vec4f();
    var s3 = vec4f();

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
        let y0_0 = right_tile[(step + 0u) * 9u + right];
        let y1_0 = right_tile[(step + 1u) * 9u + right];
        let y2_0 = right_tile[(step + 2u) * 9u + right];
        let y3_0 = right_tile[(step + 3u) * 9u + right];
        let y_col0_0 = y0_0;
        let y_col1_0 = y1_0;
        let y_col2_0 = y2_0;
        let y_col3_0 = y3_0;
        s0 = fma(vec4f(x3_0.x), y_col3_0, fma(vec4f(x2_0.x), y_col2_0, fma(vec4f(x1_0.x), y_col1_0, fma(vec4f(x0_0.x), y_col0_0, s0))));
        s1 = fma(vec4f(x3_0.y), y_col3_0, fma(vec4f(x2_0.y), y_col2_0, fma(vec4f(x1_0.y), y_col1_0, fma(vec4f(x0_0.y), y_col0_0, s1))));
        s2 = fma(vec4f(x3_0.z), y_col3_0, fma(vec4f(x2_0.z), y_col2_0, fma(vec4f(x1_0.z), y_col1_0, fma(vec4f(x0_0.z), y_col0_0, s2))));
        s3 = fma(vec4f(x3_0.w), y_col3_0, fma(vec4f(x2_0.w), y_col2_0, fma(vec4f(x1_0.w), y_col1_0, fma(vec4f(x0_0.w), y_col0_0, s3))));
      }
    }

    let known = other < vec4u(sizes.columns);
    let seen0 = known;
    let e0 = select(vec4f(LOWEST), s0 * sizes.scale, seen0);
    let seen1 = known;
    let e1 = select(vec4f(LOWEST), s1 * sizes.scale, seen1);
    let seen2 = known;
    let e2 = select(vec4f(LOWEST), s2 * sizes.scale, seen2);
    let seen3 = known;
    let e3 = select(vec4f(LOWEST), s3 * sizes.scale, seen3);
    workgroupBarrier();
    shares[(4u * (below + 0u) + 0u) * 8u + right] = max(max(e0.x, e0.y), max(e0.z, e0.w));
    shares[(4u * (below + 0u) + 1u) * 8u + right] = max(max(e1.x, e1.y), max(e1.z, e1.w));
    shares[(4u * (below + 0u) + 2u) * 8u + right] = max(max(e2.x, e2.y), max(e2.z, e2.w));
    shares[(4u * (below + 0u) + 3u) * 8u + right] = max(max(e3.x, e3.y), max(e3.z, e3.w));
    workgroupBarrier();
    let max0 = max(max(max(max(max(max(max(shares[(4u * (below + 0u) + 0u) * 8u + 0u], shares[(4u * (below + 0u) + 0u) * 8u + 1u]), shares[(4u * (below + 0u) + 0u) * 8u + 2u]), shares[(4u * (below + 0u) + 0u) * 8u + 3u]), shares[(4u * (below + 0u) + 0u) * 8u + 4u]), shares[(4u * (below + 0u) + 0u) * 8u + 5u]), shares[(4u * (below + 0u) + 0u) * 8u + 6u]), shares[(4u * (below + 0u) + 0u) * 8u + 7u]);
    let max1 = max(max(max(max(max(max(max(shares[(4u * (below + 0u) + 1u) * 8u + 0u], shares[(4u * (below + 0u) + 1u) * 8u + 1u]), shares[(4u * (below + 0u) + 1u) * 8u + 2u]), shares[(4u * (below + 0u) + 1u) * 8u + 3u]), shares[(4u * (below + 0u) + 1u) * 8u + 4u]), shares[(4u * (below + 0u) + 1u) * 8u + 5u]), shares[(4u * (below + 0u) + 1u) * 8u + 6u]), shares[(4u * (below + 0u) + 1u) * 8u + 7u]);
    let max2 = max(max(max(max(max(max(max(shares[(4u * (below + 0u) + 2u) * 8u + 0u], shares[(4u * (below + 0u) + 2u) * 8u + 1u]), shares[(4u * (below + 0u) + 2u) * 8u + 2u]), shares[(4u * (below + 0u) + 2u) * 8u + 3u]), shares[(4u * (below + 0u) + 2u) * 8u + 4u]), shares[(4u * (below + 0u) + 2u) * 8u + 5u]), shares[(4u * (below + 0u) + 2u) * 8u + 6u]), shares[(4u * (below + 0u) + 2u) * 8u + 7u]);
    let max3 = max(max(max(max(max(max(max(shares[(4u * (below + 0u) + 3u) * 8u + 0u], shares[(4u * (below + 0u) + 3u) * 8u + 1u]), shares[(4u * (below + 0u) + 3u) * 8u + 2u]), shares[(4u * (below + 0u) + 3u) * 8u + 3u]), shares[(4u * (below + 0u) + 3u) * 8u + 4u]), shares[(4u * (below + 0u) + 3u) * 8u + 5u]), shares[(4u * (below + 0u) + 3u) * 8u + 6u]), shares[(4u * (below + 0u) + 3u) * 8u + 7u]);
    let top0 = max(most0, max0);
    let fade0 = exp(most0 - top0);
    most0 = top0;
    let p0 = select(vec4f(), exp(e0 - top0), seen0);
    total0 = total0 * fade0 + dot(p0, vec4f(1.0));
    o0_0 *= fade0;
    o0_1 *= fade0;
    let top1 = max(most1, max1);
    let fade1 = exp(most1 - top1);
    most1 = top1;
    let p1 = select(vec4f(), exp(e1 - top1), seen1);
    total1 = total1 * fade1 + dot(p1, vec4f(1.0));
    o1_0 *= fade1;
    o1_1 *= fade1;
    let top2 = max(most2, max2);
    let fade2 = exp(most2 - top2);
    most2 = top2;
    let p2 = select(vec4f(), exp(e2 - top2), seen2);
    total2 = total2 * fade2 + dot(p2, vec4f(1.0));
    o2_0 *= fade2;
    o2_1 *= fade2;
    let top3 = max(most3, max3);
    let fade3 = exp(most3 - top3);
    most3 = top3;
    let p3 = select(vec4f(), exp(e3 - top3), seen3);
    total3 = total3 * fade3 + dot(p3, vec4f(1.0));
    o3_0 *= fade3;
    o3_1 *= fade3;
    workgroupBarrier();
    weights[(4u * (below + 0u) + 0u) * 8u + right] = p0;
    weights[(4u * (below + 0u) + 1u) * 8u + right] = p1;
    weights[(4u * (below + 0u) + 2u) * 8u + right] = p2;
    weights[(4u * (below + 0u) + 3u) * 8u + right] = p3;
    workgroupBarrier();

    for (var k = 0u; k < 8u; k += 4u) {
      workgroupBarrier();

      for (var u = index; u < 64u; u += 64u) {
        stage_b(u, k, 8u, z_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < 16u; step += 4u) {
        let p_0 = weights[(4u * (below + 0u) + 0u) * 8u + k + step / 4u];
        let p_1 = weights[(4u * (below + 0u) + 1u) * 8u + k + step / 4u];
        let p_2 = weights[(4u * (below + 0u) + 2u) * 8u + k + step / 4u];
        let p_3 = weights[(4u * (below + 0u) + 3u) * 8u + k + step / 4u];
        let b0_0 = block_tile[(step + 0u) * 17u + right + 0u];
        let b0_1 = block_tile[(step + 0u) * 17u + right + 8u];
        let b1_0 = block_tile[(step + 1u) * 17u + right + 0u];
        let b1_1 = block_tile[(step + 1u) * 17u + right + 8u];
        let b2_0 = block_tile[(step + 2u) * 17u + right + 0u];
        let b2_1 = block_tile[(step + 2u) * 17u + right + 8u];
        let b3_0 = block_tile[(step + 3u) * 17u + right + 0u];
        let b3_1 = block_tile[(step + 3u) * 17u + right + 8u];
        let b_col0_0 = b0_0;
        let b_col1_0 = b1_0;
        let b_col2_0 = b2_0;
        let b_col3_0 = b3_0;
        o0_0 = fma(vec4f(p_0.w), b_col3_0, fma(vec4f(p_0.z), b_col2_0, fma(vec4f(p_0.y), b_col1_0, fma(vec4f(p_0.x), b_col0_0, o0_0))));
        o1_0 = fma(vec4f(p_1.w), b_col3_0, fma(vec4f(p_1.z), b_col2_0, fma(vec4f(p_1.y), b_col1_0, fma(vec4f(p_1.x), b_col0_0, o1_0))));
        o2_0 = fma(vec4f(p_2.w), b_col3_0, fma(vec4f(p_2.z), b_col2_0, fma(vec4f(p_2.y), b_col1_0, fma(vec4f(p_2.x), b_col0_0, o2_0))));
        o3_0 = fma(vec4f(p_3.w), b_col3_0, fma(vec4f(p_3.z), b_col2_0, fma(vec4f(p_3.y), b_col1_0, fma(vec4f(p_3.x), b_col0_0, o3_0))));
        let b_col0_1 = b0_1;
        let b_col1_1 = b1_1;
        let b_col2_1 = b2_1;
        let b_col3_1 = b3_1;
        o0_1 = fma(vec4f(p_0.w), b_col3_1, fma(vec4f(p_0.z), b_col2_1, fma(vec4f(p_0.y), b_col1_1, fma(vec4f(p_0.x), b_col0_1, o0_1))));
        o1_1 = fma(vec4f(p_1.w), b_col3_1, fma(vec4f(p_1.z), b_col2_1, fma(vec4f(p_1.y), b_col1_1, fma(vec4f(p_1.x), b_col0_1, o1_1))));
        o2_1 = fma(vec4f(p_2.w), b_col3_1, fma(vec4f(p_2.z), b_col2_1, fma(vec4f(p_2.y), b_col1_1, fma(vec4f(p_2.x), b_col0_1, o2_1))));
        o3_1 = fma(vec4f(p_3.w), b_col3_1, fma(vec4f(p_3.z), b_col2_1, fma(vec4f(p_3.y), b_col1_1, fma(vec4f(p_3.x), b_col0_1, o3_1))));
      }
    }
  }
  workgroupBarrier();
  shares[(4u * (below + 0u) + 0u) * 8u + right] = total0;
  shares[(4u * (below + 0u) + 1u) * 8u + right] = total1;
  shares[(4u * (below + 0u) + 2u) * 8u + right] = total2;
  shares[(4u * (below + 0u) + 3u) * 8u + right] = total3;
  workgroupBarrier();
  let add0 = (((((((shares[(4u * (below + 0u) + 0u) * 8u + 0u] + shares[(4u * (below + 0u) + 0u) * 8u + 1u]) + shares[(4u * (below + 0u) + 0u) * 8u + 2u]) + shares[(4u * (below + 0u) + 0u) * 8u + 3u]) + shares[(4u * (below + 0u) + 0u) * 8u + 4u]) + shares[(4u * (below + 0u) + 0u) * 8u + 5u]) + shares[(4u * (below + 0u) + 0u) * 8u + 6u]) + shares[(4u * (below + 0u) + 0u) * 8u + 7u]);
  let add1 = (((((((shares[(4u * (below + 0u) + 1u) * 8u + 0u] + shares[(4u * (below + 0u) + 1u) * 8u + 1u]) + shares[(4u * (below + 0u) + 1u) * 8u + 2u]) + shares[(4u * (below + 0u) + 1u) * 8u + 3u]) + shares[(4u * (below + 0u) + 1u) * 8u + 4u]) + shares[(4u * (below + 0u) + 1u) * 8u + 5u]) + shares[(4u * (below + 0u) + 1u) * 8u + 6u]) + shares[(4u * (below + 0u) + 1u) * 8u + 7u]);
  let add2 = (((((((shares[(4u * (below + 0u) + 2u) * 8u + 0u] + shares[(4u * (below + 0u) + 2u) * 8u + 1u]) + shares[(4u * (below + 0u) + 2u) * 8u + 2u]) + shares[(4u * (below + 0u) + 2u) * 8u + 3u]) + shares[(4u * (below + 0u) + 2u) * 8u + 4u]) + shares[(4u * (below + 0u) + 2u) * 8u + 5u]) + shares[(4u * (below + 0u) + 2u) * 8u + 6u]) + shares[(4u * (below + 0u) + 2u) * 8u + 7u]);
  let add3 = (((((((shares[(4u * (below + 0u) + 3u) * 8u + 0u] + shares[(4u * (below + 0u) + 3u) * 8u + 1u]) + shares[(4u * (below + 0u) + 3u) * 8u + 2u]) + shares[(4u * (below + 0u) + 3u) * 8u + 3u]) + shares[(4u * (below + 0u) + 3u) * 8u + 4u]) + shares[(4u * (below + 0u) + 3u) * 8u + 5u]) + shares[(4u * (below + 0u) + 3u) * 8u + 6u]) + shares[(4u * (below + 0u) + 3u) * 8u + 7u]);
  let sum0 = total_(add0);
  let sum1 = total_(add1);
  let sum2 = total_(add2);
  let sum3 = total_(add3);
  if (first + 4u * (below + 0u) + 0u < sizes.rows) {
    out[(out_start + r0 * sizes.out_row + d0) / 4u] = o0_0 / sum0;
    out[(out_start + r0 * sizes.out_row + d4) / 4u] = o0_1 / sum0;
    logs[batch * sizes.rows + r0] = most0 + log_(sum0);
  }
  if (first + 4u * (below + 0u) + 1u < sizes.rows) {
    out[(out_start + r1 * sizes.out_row + d0) / 4u] = o1_0 / sum1;
    out[(out_start + r1 * sizes.out_row + d4) / 4u] = o1_1 / sum1;
    logs[batch * sizes.rows + r1] = most1 + log_(sum1);
  }
  if (first + 4u * (below + 0u) + 2u < sizes.rows) {
    out[(out_start + r2 * sizes.out_row + d0) / 4u] = o2_0 / sum2;
    out[(out_start + r2 * sizes.out_row + d4) / 4u] = o2_1 / sum2;
    logs[batch * sizes.rows + r2] = most2 + log_(sum2);
  }
  if (first + 4u * (below + 0u) + 3u < sizes.rows) {
    out[(out_start + r3 * sizes.out_row + d0) / 4u] = o3_0 / sum3;
    out[(out_start + r3 * sizes.out_row + d4) / 4u] = o3_1 / sum3;
    logs[batch * sizes.rows + r3] = most3 + log_(sum3);
  }
}

struct Sizes {
  rows: u32,
  columns: u32,
  heads: u32,
  width: u32,
  depth: u32,
  cols: u32,
  tiles: u32,
  groups: u32,
  keys: u32,
  scale: f32,
  x_offset: u32,
  x_batch: u32,
  x_head: u32,
  x_row: u32,
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
@group(1) @binding(0) var<uniform> sizes: Sizes;
