// y[r, :] = exp(s x[r, :] - max) / Σ exp(s x[r, :] - max). With CAUSAL, row r belongs to query r % queries, and columns
// after the query are 0. The statistic is the largest score so far, and the sum of exponentials below it.
override CAUSAL: bool;
const LOWEST = -3.402823466e38; // no finite score is lower

@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read_write> y: array<E>;

// Which scores of a quad are of the row, and not hidden. What is not seen has no share at all: no score is so small that
// another could not be lower.
fn seen_(quad: u32, row: u32, start: u32) -> B {
  if (CAUSAL) {
    return places_(quad) <= P(start + row % sizes.queries);
  }
  return B(true);
}

fn identity_() -> vec4f {
  return vec4f(LOWEST, 0.0, 0.0, 0.0);
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let seen = inside_(places_(quad), start, end) & seen_(quad, row, start);
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
  y[quad] = select(share_(quad, next, row + 1u, end), share_(quad, s, row, start), places_(quad) < P(end));
}
