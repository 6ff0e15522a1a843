// y[o, p, i] = Σ x[o, chunk p, i], or the largest or smallest of them, for x of [outer, count, inner] whose middle axis is
// cut into chunks of `chunk` elements, the last one shorter; one invocation for each quad of y along i.
override KIND: u32; // 0 sum, 1 max, 2 min
const BLOCK = 32u;

@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read_write> y: array<E>;

fn merge_(a: E, b: E) -> E {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), E(f32(KIND)) == E(1.0));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.outputs) {
    return;
  }
  let step = sizes.quads;
  let chunk = i / step % sizes.chunks;
  let begin = (i / step / sizes.chunks * sizes.count + chunk * sizes.chunk) * step + i % step;
  let end = begin + min(sizes.chunk, sizes.count - chunk * sizes.chunk) * step;
  var none = x[begin];
  if (KIND == 0u) {
    none = E();
  }
  var total = none;
  // Of an extreme the bits without sign that are the largest: beyond those of infinity they are NaN's.
  var bits = P();
  // Blocks: short chains, so that a long sum does not outgrow what is added to it.
  for (var first = begin; first < end; first += BLOCK * step) {
    var block = none;
    for (var at = first; at < min(first + BLOCK * step, end); at += step) {
      block = merge_(block, x[at]);
      if (KIND > 0u) {
        bits = max(bits, bitcast<P>(x[at]) & P(0x7fffffffu));
      }
    }
    total = merge_(total, block);
  }
  y[i] = select(total, E(nan_()), bits > P(0x7f800000u));
}
