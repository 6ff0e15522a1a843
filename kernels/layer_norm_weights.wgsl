// dweight[p, :] = Σ g[r, :] (x[r, :] - mean[r]) rstd[r] and dbias[p, :] = Σ g[r, :] over the rows r of chunk p; one
// invocation for each quad of columns of a chunk.
@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read> stats: array<vec2f>;
@group(0) @binding(2) var<storage, read> g: array<E>;
@group(0) @binding(3) var<storage, read_write> dweight: array<E>;
@group(0) @binding(4) var<storage, read_write> dbias: array<E>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.outputs) {
    return;
  }
  let first = i / sizes.quads * sizes.chunk;
  let end = min(first + sizes.chunk, sizes.rows);
  var weights = E();
  var biases = E();
  for (var row = first; row < end; row++) {
    let at = row * sizes.quads + i % sizes.quads;
    biases += g[at];
    weights += g[at] * (x[at] - stats[row].x) * stats[row].y;
  }
  dweight[i] = weights;
  dbias[i] = biases;
}
