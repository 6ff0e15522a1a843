// dx[r, c] = g[r] (softmax(x[r, :])[c] - (1 - ε) [c = label] - ε / cols), 0 for a label that is no class, with stats of
// cross_entropy.wgsl; one invocation for each element.
struct Sizes {
  rows: u32,
  cols: u32,
  smoothing: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;
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
  let label = labels[row];
  let hit = select(0.0, 1.0 - sizes.smoothing, i % sizes.cols == label);
  let found = exp(x[i] - stats[row].x - stats[row].y) - hit - sizes.smoothing / f32(sizes.cols);
  dx[i] = select(0.0, g[row] * found, label < sizes.cols);
}
