// y[i, :] = table[i / GROUP · step + ids[i], :], where ids[i] is below step: the rows of an embedding table, or one token
// of each sequence. The table bound is the chunk of it that begins at row `first`; rows that lie in no chunk are 0.
@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

fn load_table(at: u32) -> f32 {
  return table[at];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.count * sizes.cols) {
    return;
  }
  let i = at / sizes.cols;
  let row = i / sizes.group * sizes.step + ids[i];
  let known = ids[i] < sizes.step;
  if (known && row >= sizes.first && row - sizes.first < sizes.rows) {
    y[at] = load_table((row - sizes.first) * sizes.cols + at % sizes.cols);
  } else if (sizes.first == 0u) {
    y[at] = 0.0;
  }
}
