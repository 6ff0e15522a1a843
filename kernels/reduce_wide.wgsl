// y[o] = Σ x[o, :], or the largest or smallest of them, for few long rows of x; one workgroup for each row.
override KIND: u32; // 0 sum, 1 max, 2 min
const LANES = 256u;
const TURN = 4u * LANES; // what all lanes read in a step
const BLOCK = 16u;

struct Sizes {
  count: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

var<workgroup> partial: array<f32, LANES>;

fn join(a: vec4f, b: vec4f) -> vec4f {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), KIND == 1u);
}

fn fold(lanes: vec4f) -> f32 {
  let pairs = join(lanes, lanes.zwxy);
  return join(pairs, pairs.yxwz).x;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x * sizes.count;
  let start = vec4f(select(x[row], 0.0, KIND == 0u));
  let whole = sizes.count / TURN * TURN;
  var total = start;
  // Blocks of four running values: short chains, so that a long sum does not outgrow what is added to it.
  for (var first = lane; first < whole; first += BLOCK * TURN) {
    let end = min(first + BLOCK * TURN, whole);
    var lanes = start;
    for (var at = row + first; at < row + end; at += TURN) {
      lanes = join(lanes, vec4f(x[at], x[at + LANES], x[at + 2u * LANES], x[at + 3u * LANES]));
    }
    total = join(total, lanes);
  }
  for (var at = whole + lane; at < sizes.count; at += LANES) {
    total.x = join(total, vec4f(x[row + at])).x;
  }
  partial[lane] = fold(total);
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
      partial[lane] = join(vec4f(partial[lane]), vec4f(partial[lane + reach])).x;
    }
  }
  if (lane == 0u) {
    y[group.x] = partial[0];
  }
}
