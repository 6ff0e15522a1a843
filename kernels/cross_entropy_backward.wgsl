// dx[r, c] = g[r] (exp(x[r, c] - lse[r]) - (1 - ε) [c = label] - ε / cols), one invocation for each element.
struct Sizes {
  rows: u32,
  cols: u32,
  smoothing: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.rows * sizes.cols) {
    return;
  }
  let row = i / sizes.cols;
  let hit = select(0.0, 1.0 - sizes.smoothing, i % sizes.cols == labels[row]);
  dx[i] = g[row] * (exp(x[i] - lse[row]) - hit - sizes.smoothing / f32(sizes.cols));
}
