// dx[n, y, x] = Σ g[n, p, q, i, j] over the windows [p, q] whose element [i, j] lies on the pixel: y = down p + i down_step,
// x = across q + j across_step. One invocation for each pixel of the images n.
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.count) {
    return;
  }
  let y = at / sizes.width % sizes.height;
  let x = at % sizes.width;
  let image = at / sizes.width / sizes.height * sizes.rows;
  var sum = 0.0;
  for (var i = 0u; i < sizes.kernel_rows; i++) {
    // Above the first window the difference wraps around, to a row that is none.
    let top = y - i * sizes.down_step;
    if (top % sizes.down != 0u || top / sizes.down >= sizes.rows) {
      continue;
    }
    let row = (image + top / sizes.down) * sizes.cols;
    for (var j = 0u; j < sizes.kernel_cols; j++) {
      let left = x - j * sizes.across_step;
      if (left % sizes.across == 0u && left / sizes.across < sizes.cols) {
        let window = row + left / sizes.across;
        sum += g[(window * sizes.kernel_rows + i) * sizes.kernel_cols + j];
      }
    }
  }
  dx[at] = sum;
}
