// loss[r] = log Σ exp x[r, :] - (1 - ε) x[r, label] - ε mean(x[r, :]), 0 for a label that is no class, with
// stats[r] = (max, log Σ exp(x[r, :] - max)); one invocation for each row.
struct Sizes {
  rows: u32,
  cols: u32,
  smoothing: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> stats: array<vec2f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var largest = x[start];
  for (var col = 1u; col < sizes.cols; col++) {
    largest = max(largest, x[start + col]);
  }
  var sum = 0.0;
  var total = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    // Distances from the largest stay small where the logits themselves are not.
    let below = x[start + col] - largest;
    sum += exp(below);
    total += below;
  }
  let above = log(sum);
  stats[row] = vec2f(largest, above);
  let label = labels[row];
  let chosen = x[start + min(label, sizes.cols - 1u)] - largest;
  let found = above - (1.0 - sizes.smoothing) * chosen - sizes.smoothing * total / f32(sizes.cols);
  loss[row] = select(0.0, found, label < sizes.cols);
}
