// dtable[r, :] += Σ g[i, :] over the i of r's group with ids[i] = r % step: the gradient of
// gather.wgsl, for the ids from `first` to before `last` of each group. If `first` is 0, the sum
// begins at 0. One invocation for each four columns of a row. It searches the ids in order, which
// takes most of the time: no atomics, the same sum on every run.

// Four columns from the one at `at` on; the last one again for those beyond the end of the row.
fn four(at: u32, width: u32) -> vec4u {
  return at + min(vec4u(0u, 1u, 2u, 3u), vec4u(width - 1u));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  let fours = (sizes.cols + 3u) / 4u;
  if (at >= sizes.rows * fours) {
    return;
  }
  let row = at / fours;
  let col = at % fours * 4u;
  let width = min(4u, sizes.cols - col);
  let wanted = row % sizes.step;
  let start = row / sizes.step * sizes.group;
  let to = four(row * sizes.cols + col, width);
  var sum = vec4f();
  if (sizes.first > 0u) {
    sum = vec4f(dtable[to.x], dtable[to.y], dtable[to.z], dtable[to.w]);
  }
  for (var i = start + sizes.first; i < start + sizes.last; i++) {
    if (ids[i] == wanted) {
      let at_g = four(i * sizes.cols + col, width);
      sum += vec4f(g[at_g.x], g[at_g.y], g[at_g.z], g[at_g.w]);
    }
  }
  dtable[to.x] = sum.x;
  dtable[to.y] = sum.y;
  dtable[to.z] = sum.z;
  dtable[to.w] = sum.w;
}
