// values[r, :] and indices[r, :] are the k largest of x[r, :], in descending order, the first of equal ones first; one
// invocation for each row. With SMALLEST the k smallest, in ascending order.
override SMALLEST: bool;

struct Sizes {
  rows: u32,
  cols: u32,
  k: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> indices: array<i32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn signed(at: u32) -> f32 {
  return select(x[at], -x[at], SMALLEST);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var last = 0.0;
  var last_col = 0u;
  for (var rank = 0u; rank < sizes.k; rank++) {
    // The largest of what comes after the one found last: smaller, or equal and further on.
    var best = 0.0;
    var best_col = sizes.cols;
    for (var col = 0u; col < sizes.cols; col++) {
      let value = signed(start + col);
      let left = rank == 0u || value < last || (value == last && col > last_col);
      if (left && (best_col == sizes.cols || value > best)) {
        best = value;
        best_col = col;
      }
    }
    last = best;
    last_col = best_col;
    values[row * sizes.k + rank] = select(best, -best, SMALLEST);
    indices[row * sizes.k + rank] = i32(best_col);
  }
}
