// loss[r] = lse - (1 - ε) x[r, label] - ε mean(x[r, :]), with lse[r] = log Σ exp x[r, :]; one invocation for each row.
struct Sizes {
  rows: u32,
  cols: u32,
  smoothing: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
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
    sum += exp(x[start + col] - largest);
    // Distances from the largest stay small where the logits themselves are not.
    total += x[start + col] - largest;
  }
  let above = log(sum);
  let chosen = x[start + min(labels[row], sizes.cols - 1u)] - largest;
  loss[row] = above - (1.0 - sizes.smoothing) * chosen - sizes.smoothing * total / f32(sizes.cols);
  lse[row] = largest + above;
}
