// softmax.wgsl, 1576 x 768
// y[r, :] = exp(s x[r, :] - max) / Σ exp(s x[r, :] - max). With CAUSAL, row r belongs to query r %
// queries, and columns after the query are 0. The statistic is the largest score so far, and the
// sum of exponentials below it.
override ACROSS: u32;
override DOWN: u32;
override GROUP: u32;
override WRITES: bool;
override ALIGNED: bool;
override CAUSAL: bool;
struct Sizes {
  rows: u32,
  cols: u32,
  queries: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

const LOWEST = -3.402823466e38; // no finite score is lower

// Which scores of a quad are of the row, and not hidden. What is not seen has no share at all: a
// score, however small, would have some.
fn seen_(quad: u32, row: u32, start: u32) -> B {
  if (CAUSAL) {
    return indices_(quad) <= P(start + row % sizes.queries);
  }
  return B(true);
}

fn identity_() -> vec4f {
  return vec4f(LOWEST, 0.0, 0.0, 0.0);
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let seen = inside_(indices_(quad), start, end) & seen_(quad, row, start);
  let scores = select(E(LOWEST), sizes.scale * x[quad], seen);
  let top = max(s.x, max_(scores));
  return vec4f(top, s.y * exp(s.x - top) + sum_(select(E(), exp(scores - top), seen)), 0.0, 0.0);
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  let top = max(a.x, b.x);
  return vec4f(top, a.y * exp(a.x - top) + b.y * exp(b.x - top), 0.0, 0.0);
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  return vec4f(s.x, 1.0 / total_(s.y), 0.0, 0.0);
}

fn share_(quad: u32, s: vec4f, row: u32, start: u32) -> E {
  return select(E(), exp(sizes.scale * x[quad] - s.x) * s.y, seen_(quad, row, start));
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {
  y[quad] = share_(quad, s, row, start);
}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {
  let is_first = indices_(quad) < P(end);
  y[quad] = select(share_(quad, next, row + 1u, end), share_(quad, s, row, start), is_first);
}

// Where rows lie whose op does not say.
fn row_start_(row: u32) -> u32 {
  return row * sizes.cols;
}

fn row_end_(row: u32) -> u32 {
  return (row + 1u) * sizes.cols;
}

// The frame of kernels that work on each row by itself: first a statistic of the row, then its
// elements. The op, whose WGSL comes before, says what they are:
//
//   identity_()                             the statistic of no elements, a vec4f
//   accumulate_(s, quad, row, start, end)   s with the elements of a quad that are in the row
//   combine_(a, b)                          the statistic of two shares of a row
//   finalize_(s, row)                       what the elements need of it
//   write_(quad, s, row, start)             makes the new elements of a quad
//   write_shared_(quad, s, row, start, next, end)
//                                           those of a quad of two rows, the second from `end` on
//
// A quad, E, is a vec4 along the row, or one element where WIDTH is 1. A group of rows is as many
// as make up quads together, so that no quad is written by two invocations. Rows lie one after
// another, or where the op's row_start_(row) and row_end_(row) say. The constants are:
//
//   ACROSS   invocations of a row, a power of 2
//   DOWN     groups of rows of a workgroup
//   GROUP    rows of a group
//   WRITES   whether there are new elements
//   ALIGNED  whether rows begin and end with quads

var<workgroup> shares: array<vec4f, ACROSS * DOWN>;

// Which of some indices are in a row.
fn inside_(at: P, start: u32, end: u32) -> B {
  if (ALIGNED) {
    return B(true);
  }
  return (at >= P(start)) & (at < P(end));
}

// The statistic of a row, from its invocations' shares.
fn combined_(share: vec4f, invocation: vec2u) -> vec4f {
  if (ACROSS == 1u) {
    return share;
  }
  let index = invocation.y * ACROSS + invocation.x;
  shares[index] = share;
  for (var reach = ACROSS / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (invocation.x < reach) {
      shares[index] = combine_(shares[index], shares[index + reach]);
    }
  }
  workgroupBarrier();
  let s = shares[invocation.y * ACROSS];
  workgroupBarrier(); // before the next row's shares
  return s;
}

fn statistic_(row: u32, invocation: vec2u) -> vec4f {
  var s = identity_();
  let start = row_start_(row);
  // Of rows beyond the last one nothing is read.
  let end = select(start, row_end_(row), row < sizes.rows);
  for (var quad = start / WIDTH + invocation.x; quad * WIDTH < end; quad += ACROSS) {
    s = accumulate_(s, quad, row, start, end);
  }
  return finalize_(combined_(s, invocation), row);
}

// In one dimension: Mesa's software driver has the lanes of a register lie along x.
@compute @workgroup_size(ACROSS * DOWN)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let invocation = vec2u(index % ACROSS, index / ACROSS);
  let first = ((group.y * groups.x + group.x) * DOWN + invocation.y) * GROUP;
  var s = statistic_(first, invocation);
  if (!WRITES) {
    return;
  }
  // Counted from 0: a barrier within must be reached by all invocations alike.
  for (var r = 0u; r < GROUP; r++) {
    let row = first + r;
    let start = row_start_(row);
    let end = select(start, row_end_(row), row < sizes.rows);
    var next = s;
    if (GROUP > 1u) {
      next = statistic_(row + 1u, invocation);
    }
    let begin = (start + WIDTH - 1u) / WIDTH;
    for (var quad = begin + invocation.x; (quad + 1u) * WIDTH <= end; quad += ACROSS) {
      write_(quad, s, row, start);
    }
    if (GROUP > 1u) {
      let last = end / WIDTH;
      if (last >= begin && last * WIDTH < end && invocation.x == 0u) {
        write_shared_(last, s, row, start, next, end);
      }
    }
    s = next;
  }
}

// What the WGSL of an op on rows can name, where an invocation works on vec4.
alias E = vec4f;
alias P = vec4u;
alias B = vec4<bool>;
const WIDTH = 4u;

fn indices_(quad: u32) -> P {
  return 4u * quad + vec4u(0u, 1u, 2u, 3u);
}

fn sum_(x: E) -> f32 {
  return (x.x + x.y) + (x.z + x.w);
}

fn max_(x: E) -> f32 {
  return max(max(x.x, x.y), max(x.z, x.w));
}

fn min_(x: E) -> f32 {
  return min(min(x.x, x.y), min(x.z, x.w));
}

fn exps_(x: E) -> E {
  return exp4_(x);
}

fn any_nan_(x: E) -> bool {
  return any((bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}

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
