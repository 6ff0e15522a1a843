// What WGSL lacks, or leaves open. Pointwise kernels begin with this file.

// tanh from exp: the built-in one is NaN beyond ±44 on some adapters, and loses the digits of small x on others.
fn tanh_(x: f32) -> f32 {
  let e = exp(-2.0 * min(abs(x), 15.0));
  let s = x * x;
  let small = x * (1.0 - s * (0.33333333 - s * (0.13333333 - s * 0.05396825)));
  return select(sign(x) * (1.0 - e) / (1.0 + e), small, abs(x) < 0.2);
}

// 1 / (1 + e⁻ˣ) without an infinity on the way.
fn sigmoid_(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(clamp(-x, -87.0, 87.0)));
}

// sin(x + quarters π/2) to 1e-7 where |x| is below 8,000: WGSL allows the built-in one an error of 5e-4, and only within
// ±π. The quarter turns nearest to x are taken off in three parts, the first two exactly; what is left is within ±π/4,
// for which the polynomials are those of Cephes.
fn sine_(x: f32, quarters: i32) -> f32 {
  let n = round(x * 0.63661977);
  let r = ((x - n * 1.5703125) - n * 0.00048375129699707031) - n * 7.5497899549e-8;
  let s = r * r;
  let sine = r + r * s * (-0.16666654611 + s * (0.0083321608736 - s * 0.00019515295891));
  let cosine = 1.0 - 0.5 * s + s * s * (0.041666645683 + s * (-0.0013887316255 + s * 0.000024433157118));
  let turn = i32(n) + quarters;
  let y = select(sine, cosine, (turn & 1) == 1);
  return select(y, -y, (turn & 2) == 2);
}

// The normal distribution's share below x, to a relative 3e-7 also far below 0. With z = |x| / √2 it is half of
// erfc(z) = exp(-z²) f(z); f was fitted in t = 1 / (1 + z / 2) for z up to 9.5, least relative error first.
fn normal_(x: f32) -> f32 {
  let z = abs(x) * 0.7071067811865476;
  let t = 1.0 / (1.0 + 0.5 * z);
  let low = 0.202074349 + t * (-0.0251889079 + t * (0.275995195 + t * (-0.485399187 + t * (0.283709705 - t * 0.0588924028))));
  let tail = 0.5 * t * (0.282087684 + t * (0.28235361 + t * (0.243259937 + t * low))) * exp(-min(z * z, 87.0));
  return select(tail, 1.0 - tail, x > 0.0);
}

// x to a power, also for 0 and for negative x and whole powers, where WGSL's pow is loose or undefined.
fn pow_(x: f32, power: f32) -> f32 {
  if (power == 0.0) {
    return 1.0;
  }
  if (x == 0.0) {
    return select(0.0, 1.0 / abs(x), power < 0.0);
  }
  let size = pow(abs(x), power);
  let odd = fract(abs(power) * 0.5) == 0.5;
  return select(size, -size, x < 0.0 && odd);
}

fn gelu_tanh_derivative_(x: f32) -> f32 {
  let u = 1.5957691216057308 * (x + 0.044715 * x * x * x);
  return sigmoid_(u) * (1.0 + sigmoid_(-u) * 1.5957691216057308 * (x + 0.134145 * x * x * x));
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
