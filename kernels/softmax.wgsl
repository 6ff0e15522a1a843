// y[r, :] = exp(s x[r, :] - max) / Σ exp(s x[r, :] - max). With CAUSAL, row r belongs to query r % queries, and columns
// after the query are 0. The statistic is the largest score so far, and the sum of exponentials below it.
override CAUSAL: bool;
const HIDDEN = -1e30; // so low that its exponential is 0, and finite

struct Sizes {
  rows: u32,
  cols: u32,
  queries: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read_write> y: array<E>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn scores_(quad: u32, row: u32, start: u32) -> E {
  let scores = sizes.scale * x[quad];
  if (CAUSAL) {
    return select(E(HIDDEN), scores, places_(quad) <= P(start + row % sizes.queries));
  }
  return scores;
}

fn none_() -> vec4f {
  return vec4f(HIDDEN, 0.0, 0.0, 0.0);
}

fn take_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let scores = select(E(HIDDEN), scores_(quad, row, start), inside_(places_(quad), start, end));
  let top = max(s.x, max_(scores));
  return vec4f(top, s.y * exp(s.x - top) + sum_(exp(scores - top)), 0.0, 0.0);
}

fn join_(a: vec4f, b: vec4f) -> vec4f {
  let top = max(a.x, b.x);
  return vec4f(top, a.y * exp(a.x - top) + b.y * exp(b.x - top), 0.0, 0.0);
}

fn done_(s: vec4f, row: u32) -> vec4f {
  return vec4f(s.x, 1.0 / s.y, 0.0, 0.0);
}

fn share_(quad: u32, s: vec4f, row: u32, start: u32) -> E {
  return exp(scores_(quad, row, start) - s.x) * s.y;
}

fn give_(quad: u32, s: vec4f, row: u32, start: u32) {
  y[quad] = share_(quad, s, row, start);
}

fn mix_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {
  y[quad] = select(share_(quad, next, row + 1u, end), share_(quad, s, row, start), places_(quad) < P(end));
}
