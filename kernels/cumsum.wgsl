// y[r, c] = Σ x[r, :c+1], or with REVERSE Σ x[r, c:]; one invocation for each row.
override REVERSE: bool;

@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  var sum = 0.0;
  for (var step = 0u; step < sizes.cols; step++) {
    let at = row * sizes.cols + select(step, sizes.cols - 1u - step, REVERSE);
    sum += x[at];
    y[at] = sum;
  }
}
