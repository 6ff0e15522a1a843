// dtable[r, :] += Σ g[i, :] over the i of r's group with ids[i] = r % step: the gradient of gather.wgsl, for the ids from
// `first` to before `last` of each group; at first the sum begins at 0. One invocation for each element, which looks for
// its row's ids in order: no atomics, the same sum on every run.
@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> dtable: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.rows * sizes.cols) {
    return;
  }
  let row = at / sizes.cols;
  let start = row / sizes.step * sizes.group;
  var sum = 0.0;
  if (sizes.first > 0u) {
    sum = dtable[at];
  }
  for (var i = start + sizes.first; i < start + sizes.last; i++) {
    if (ids[i] == row % sizes.step) {
      sum += g[i * sizes.cols + at % sizes.cols];
    }
  }
  dtable[at] = sum;
}
