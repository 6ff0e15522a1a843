// y[r, :] = (x[r, :] - mean) / √(var + ε) · weight + bias, with stats[r] = (mean, 1 / √(var + ε)); one invocation for
// each row.
struct Sizes {
  rows: u32,
  cols: u32,
  epsilon: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var sum = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    sum += x[start + col];
  }
  let rough = sum / f32(sizes.cols);
  // A second pass: the mean of squares less the square of the mean would lose what a large mean leaves of them. What
  // the first pass lost to rounding is the mean of the differences.
  var squares = 0.0;
  var rest = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    let d = x[start + col] - rough;
    squares += d * d;
    rest += d;
  }
  rest /= f32(sizes.cols);
  let mean = rough + rest;
  let rstd = 1.0 / sqrt(max(squares / f32(sizes.cols) - rest * rest, 0.0) + sizes.epsilon);
  for (var col = 0u; col < sizes.cols; col++) {
    y[start + col] = (x[start + col] - mean) * rstd * weight[col] + bias[col];
  }
  stats[row] = vec2f(mean, rstd);
}
