// dx[r, :] = g[r, :] - exp(y[r, :]) Σ g[r, :]. The statistic is the sum.
@group(0) @binding(0) var<storage, read> y: array<E>;
@group(0) @binding(1) var<storage, read> g: array<E>;
@group(0) @binding(2) var<storage, read_write> dx: array<E>;

fn identity_() -> vec4f {
  return vec4f();
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  return vec4f(s.x + sum_(select(E(), g[quad], inside_(places_(quad), start, end))), 0.0, 0.0, 0.0);
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  return a + b;
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  return s;
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {
  dx[quad] = g[quad] - exps_(y[quad]) * s.x;
}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {
  dx[quad] = g[quad] - exps_(y[quad]) * select(E(next.x), E(s.x), places_(quad) < P(end));
}
