// What WGSL lacks, or leaves open. Pointwise kernels begin with this file.

// tanh, which some adapters turn into NaN beyond ±44: it is ±1 in f32 from 9.01 on.
fn tanh_(x: f32) -> f32 {
  return tanh(clamp(x, -15.0, 15.0));
}

// 1 / (1 + e⁻ˣ) without an infinity on the way.
fn sigmoid_(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(clamp(-x, -87.0, 87.0)));
}

// The error function, to 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
fn erf_(x: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return sign(x) * (1.0 - p * exp(-min(x * x, 87.0)));
}

// x to a power, also for negative x and whole powers, where WGSL's pow is undefined.
fn pow_(x: f32, power: f32) -> f32 {
  if (power == 0.0) {
    return 1.0;
  }
  let size = pow(abs(x), power);
  let odd = fract(abs(power) * 0.5) == 0.5;
  return select(size, -size, x < 0.0 && odd);
}

fn gelu_tanh_derivative_(x: f32) -> f32 {
  let t = tanh_(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * x * x);
}

// Three random words from three: pcg3d of Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020. The
// twin of hash3() in tensor/random.ts.
fn hash3_(key: vec3u) -> vec3u {
  var v = key * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v ^= v >> vec3u(16u);
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  return v;
}
