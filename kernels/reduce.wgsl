// y[o, p, i] = Σ x[o, part p, i], or the largest or smallest of them, for x of [outer, count, inner] whose middle axis is
// cut into parts of `part` elements, the last one shorter; one invocation for each y.
override KIND: u32; // 0 sum, 1 max, 2 min
const BLOCK = 64u;

struct Sizes {
  outputs: u32,
  count: u32,
  inner: u32,
  part: u32,
  parts: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

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

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.outputs) {
    return;
  }
  let step = sizes.inner;
  let part = i / step % sizes.parts;
  let begin = (i / step / sizes.parts * sizes.count + part * sizes.part) * step + i % step;
  let count = min(sizes.part, sizes.count - part * sizes.part);
  let start = vec4f(select(x[begin], 0.0, KIND == 0u));
  var total = start;
  // Blocks of four running values: short chains, so that a long sum does not outgrow what is added to it.
  for (var first = 0u; first < count; first += BLOCK) {
    let end = min(first + BLOCK, count);
    var lanes = start;
    var k = first;
    for (; k + 4u <= end; k += 4u) {
      let at = begin + k * step;
      lanes = join(lanes, vec4f(x[at], x[at + step], x[at + 2u * step], x[at + 3u * step]));
    }
    for (; k < end; k++) {
      lanes.x = join(lanes, vec4f(x[begin + k * step])).x;
    }
    total = join(total, lanes);
  }
  y[i] = fold(total);
}
