// d = g + weight_decay p; momentum ← μ momentum + gain d; p ← p - rate step, where step is momentum, for Nesterov's
// d + μ momentum, without momentum d; one invocation for each element. Source: torch.optim.SGD.
override MOMENTUM: bool; // if false, momentum is bound to no elements
override NESTEROV: bool;

struct Sizes {
  count: u32,
  rate: f32,
  weight_decay: f32,
  mu: f32,
  gain: f32,
}
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> p: array<f32>;
@group(0) @binding(2) var<storage, read_write> momentum: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.count) {
    return;
  }
  let d = g[i] + sizes.weight_decay * p[i];
  var step = d;
  if (MOMENTUM) {
    let m = sizes.mu * momentum[i] + sizes.gain * d;
    momentum[i] = m;
    step = select(m, d + sizes.mu * m, NESTEROV);
  }
  p[i] -= sizes.rate * step;
}
