// dx[r, :] = s y[r, :] (g[r, :] - Σ y[r, :] g[r, :]), one invocation for each row. Where y is 0, so is dx: a causal
// mask needs no care here.
struct Sizes {
  rows: u32,
  cols: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var dot = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    dot += y[start + col] * g[start + col];
  }
  for (var col = 0u; col < sizes.cols; col++) {
    dx[start + col] = sizes.scale * y[start + col] * (g[start + col] - dot);
  }
}
