// y[r, :] = exp(s x[r, :] - max) / Σ exp(s x[r, :] - max), one invocation for each row.
// With CAUSAL, row r belongs to query r % queries, and columns after the query are 0.
override CAUSAL: bool;

struct Sizes {
  rows: u32,
  cols: u32,
  queries: u32,
  scale: f32,
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
  var end = sizes.cols;
  if (CAUSAL) {
    end = min(end, row % sizes.queries + 1u);
  }
  // Subtracting the row's largest value keeps exp() finite and changes nothing else.
  var largest = x[start] * sizes.scale;
  for (var col = 1u; col < end; col++) {
    largest = max(largest, x[start + col] * sizes.scale);
  }
  var sum = 0.0;
  for (var col = 0u; col < end; col++) {
    let e = exp(x[start + col] * sizes.scale - largest);
    y[start + col] = e;
    sum += e;
  }
  for (var col = 0u; col < end; col++) {
    y[start + col] /= sum;
  }
  for (var col = end; col < sizes.cols; col++) {
    y[start + col] = 0.0;
  }
}
