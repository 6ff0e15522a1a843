// dx[r, :] = rstd (h - mean(h) - x̂ mean(h x̂)), with h = g[r, :] weight and x̂ = (x[r, :] - mean) rstd; with ADDS what was
// accumulated before comes to it. The statistic is both means' sums.
override ADDS: bool;

@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read> weight: array<E>;
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read> g: array<E>;
@group(0) @binding(4) var<storage, read> accumulated: array<E>;
@group(0) @binding(5) var<storage, read_write> dx: array<E>;

fn identity_() -> vec4f {
  return vec4f();
}

fn normal_of_(quad: u32, row: u32) -> E {
  return (x[quad] - stats[row].x) * stats[row].y;
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let h = g[quad] * weight[quad - start / WIDTH];
  return s + vec4f(sum_(h), sum_(h * normal_of_(quad, row)), 0.0, 0.0);
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  return a + b;
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  return s / f32(sizes.cols);
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {
  let h = g[quad] * weight[quad - start / WIDTH];
  var gradient = stats[row].y * (h - s.x - normal_of_(quad, row) * s.y);
  if (ADDS) {
    gradient += accumulated[quad];
  }
  dx[quad] = gradient;
}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {}
