// y[o] = Σ x[o, :], or the largest or smallest of them, for few long rows of x; one workgroup for each row.
override KIND: u32; // 0 sum, 1 max, 2 min
const LANES = 256u;

struct Sizes {
  count: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

var<workgroup> partial: array<f32, LANES>;

fn join(a: f32, b: f32) -> f32 {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), KIND == 1u);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * sizes.count;
  // Four running values: shorter chains, and less rounding in a long sum.
  var parts = vec4f(x[start]);
  if (KIND == 0u) {
    parts = vec4f(0.0);
  }
  var turn = 0u;
  for (var k = lane; k < sizes.count; k += LANES) {
    parts[turn] = join(parts[turn], x[start + k]);
    turn = (turn + 1u) % 4u;
  }
  partial[lane] = join(join(parts[0], parts[1]), join(parts[2], parts[3]));
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
      partial[lane] = join(partial[lane], partial[lane + reach]);
    }
  }
  if (lane == 0u) {
    y[group.x] = partial[0];
  }
}
