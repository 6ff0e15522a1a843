// y[o, i] = Σ x[o, :, i], or the largest or smallest of them, for x of [OUTER, count, inner]; one invocation for each y.
override KIND: u32; // 0 sum, 1 max, 2 min

struct Sizes {
  outputs: u32,
  count: u32,
  inner: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn join(a: f32, b: f32) -> f32 {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), KIND == 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.outputs) {
    return;
  }
  let start = at / sizes.inner * sizes.inner * sizes.count + at % sizes.inner;
  // Four running values: shorter chains, and less rounding in a long sum.
  var parts = vec4f(x[start]);
  if (KIND == 0u) {
    parts = vec4f(0.0);
  }
  let whole = sizes.count / 4u * 4u;
  for (var k = 0u; k < whole; k += 4u) {
    for (var j = 0u; j < 4u; j++) {
      parts[j] = join(parts[j], x[start + (k + j) * sizes.inner]);
    }
  }
  for (var k = whole; k < sizes.count; k++) {
    parts[k - whole] = join(parts[k - whole], x[start + k * sizes.inner]);
  }
  y[at] = join(join(parts[0], parts[1]), join(parts[2], parts[3]));
}
