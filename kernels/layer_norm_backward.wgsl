// dx[r, :] = rstd (h - mean(h) - x̂ mean(h x̂)), with h = g[r, :] weight and x̂ = (x[r, :] - mean) rstd; one invocation
// for each row.
struct Sizes {
  rows: u32,
  cols: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  let mean = stats[row].x;
  let rstd = stats[row].y;
  var sum = 0.0;
  var dot = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    let h = g[start + col] * weight[col];
    sum += h;
    dot += h * (x[start + col] - mean) * rstd;
  }
  sum /= f32(sizes.cols);
  dot /= f32(sizes.cols);
  for (var col = 0u; col < sizes.cols; col++) {
    let normal = (x[start + col] - mean) * rstd;
    dx[start + col] = rstd * (g[start + col] * weight[col] - sum - normal * dot);
  }
}
