// y[r, :] = x[r, :] - max - log Σ exp(x[r, :] - max). The statistic is the largest element so far, and the sum of
// exponentials below it.
const LOWEST = -3.402823466e38; // no finite element is lower

@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read_write> y: array<E>;

fn identity_() -> vec4f {
  return vec4f(LOWEST, 0.0, 0.0, 0.0);
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let inside = inside_(places_(quad), start, end);
  let seen = select(E(LOWEST), x[quad], inside);
  let top = max(s.x, max_(seen));
  return vec4f(top, s.y * exp(s.x - top) + sum_(select(E(), exp(seen - top), inside)), 0.0, 0.0);
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  let top = max(a.x, b.x);
  return vec4f(top, a.y * exp(a.x - top) + b.y * exp(b.x - top), 0.0, 0.0);
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  return vec4f(s.x, log_(total_(s.y)), 0.0, 0.0);
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {
  // In this order the digits of large values cancel first.
  y[quad] = x[quad] - s.x - s.y;
}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {
  let first = places_(quad) < P(end);
  y[quad] = x[quad] - select(E(next.x), E(s.x), first) - select(E(next.y), E(s.y), first);
}
