// d = g + l2 p; mean ← β₁ mean + (1 - β₁) d; square ← β₂ square + (1 - β₂) d²;
// p ← p - decay p - rate mean / (√square · correction + epsilon); one invocation for each element.
// Source: Kingma and Ba, arXiv 1412.6980, algorithm 1; decay: Loshchilov and Hutter, arXiv 1711.05101, algorithm 2.
override AMSGRAD: bool; // if false, largest is bound to no elements

struct Sizes {
  count: u32,
  // The host makes these in 64 bits: 1 - β₂ and 1 - β₂ᵗ have few digits left where 32 bits subtract.
  rate: f32,
  correction: f32,
  decay: f32,
  l2: f32,
  beta1: f32,
  beta2: f32,
  one_minus_beta1: f32,
  one_minus_beta2: f32,
  epsilon: f32,
}
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> p: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> square: array<f32>;
@group(0) @binding(4) var<storage, read_write> largest: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.count) {
    return;
  }
  let d = g[i] + sizes.l2 * p[i];
  let m = sizes.beta1 * mean[i] + sizes.one_minus_beta1 * d;
  var v = sizes.beta2 * square[i] + sizes.one_minus_beta2 * d * d;
  mean[i] = m;
  square[i] = v;
  if (AMSGRAD) {
    v = max(largest[i], v);
    largest[i] = v;
  }
  // One subtraction: `p (1 - decay)` would round a decay of 1e-6 to one or two digits.
  p[i] -= sizes.decay * p[i] + sizes.rate * m / (sqrt(v) * sizes.correction + sizes.epsilon);
}
