// y[r, :] = (x[r, :] - mean) / √(var + ε) · weight + bias, with stats[r] = (mean, 1 / √(var + ε)). The statistic is how
// many elements there were, their mean, and the sum of their squared distances from it, which two parts have together as
// Chan, Golub and LeVeque say (The American Statistician 37, 1983): no digits are lost to a large mean.
@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read> weight: array<E>;
@group(0) @binding(2) var<storage, read> bias: array<E>;
@group(0) @binding(3) var<storage, read_write> y: array<E>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2f>;

fn identity_() -> vec4f {
  return vec4f();
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let mean = sum_(x[quad]) / f32(WIDTH);
  let d = x[quad] - mean;
  return combine_(s, vec4f(f32(WIDTH), mean, sum_(d * d), 0.0));
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  let count = a.x + b.x;
  let d = b.y - a.y;
  let share = b.x / max(count, 1.0);
  return vec4f(count, a.y + d * share, a.z + b.z + d * d * a.x * share, 0.0);
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  let rstd = 1.0 / sqrt(s.z / f32(sizes.cols) + sizes.epsilon);
  if (row < sizes.rows) {
    stats[row] = vec2f(s.y, rstd);
  }
  return vec4f(s.y, rstd, 0.0, 0.0);
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {
  let col = quad - start / WIDTH;
  y[quad] = (x[quad] - s.x) * s.y * weight[col] + bias[col];
}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {}
