// dx[r, :] = g[r, :] - exp(y[r, :]) Σ g[r, :]. The statistic is the sum.

fn identity_() -> vec4f {
  return vec4f();
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let inside = inside_(indices_(quad), start, end);
  return vec4f(s.x + sum_(select(E(), g[quad], inside)), 0.0, 0.0, 0.0);
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
  dx[quad] = g[quad] - exps_(y[quad]) * select(E(next.x), E(s.x), indices_(quad) < P(end));
}
