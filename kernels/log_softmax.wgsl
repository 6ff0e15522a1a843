// y[r, :] = x[r, :] - max - log Σ exp(x[r, :] - max), one invocation for each row.
struct Sizes {
  rows: u32,
  cols: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
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
  for (var col = 0u; col < sizes.cols; col++) {
    sum += exp(x[start + col] - largest);
  }
  let above = log(sum);
  for (var col = 0u; col < sizes.cols; col++) {
    // In this order the digits of large values cancel first.
    y[start + col] = x[start + col] - largest - above;
  }
}
