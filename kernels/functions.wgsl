// What WGSL lacks, or leaves open, beside special.wgsl. Pointwise kernels begin with both.

// tanh from exp: the built-in one is NaN beyond ±44 on some GPUs, and loses the digits of small x
// on other ones.
fn tanh_(x: f32) -> f32 {
  let e = exp(-2.0 * abs(x));
  let s = x * x;
  let small = x * (1.0 - s * (0.33333333 - s * (0.13333333 - s * 0.05396825)));
  return nan_or_(x, select(sign(x) * (1.0 - e) / (1.0 + e), small, abs(x) < 0.2));
}

// 1 / (1 + e⁻ˣ), from a power that does not overflow: far below 0 it is 0, however large what it is
// multiplied with.
fn sigmoid_(x: f32) -> f32 {
  let e = exp(-abs(x));
  return nan_or_(x, select(e, 1.0, x >= 0.0) / (1.0 + e));
}

// sin(x + quarters π/2): WGSL allows the built-in one an error of 5e-4, and only within ±π. The
// quarter turns nearest to x are taken off in three parts, the first two exactly; what is left is
// within ±π/4, for which the polynomials are those of Cephes.
fn sine_(x: f32, quarters: i32) -> f32 {
  let n = round(x * 0.63661977);
  var turn = i32(n) + quarters;
  var r = ((x - n * 1.5703125) - n * 0.00048375129699707031) - n * 7.5497899549e-8;
  // A loop that is not entered is passed over, where a software GPU would go through both ways of a
  // condition.
  for (var far = abs(x) >= 8192.0; far; far = false) {
    r = reduced_(x, &turn);
    turn += quarters;
  }
  let s = r * r;
  let sine = r + r * s * (-0.16666654611 + s * (0.0083321608736 - s * 0.00019515295891));
  let cosine = 1.0 - 0.5 * s +
    s * s * (0.041666645683 + s * (-0.0013887316255 + s * 0.000024433157118));
  let y = select(sine, cosine, (turn & 1) == 1);
  return nan_or_(x, select(nan_(), select(y, -y, (turn & 2) == 2), is_finite_(x)));
}

// What is left of a large x when the quarter turns nearest to it, of which `turn` gets the number,
// are taken off. Payne and Hanek, "Radian Reduction for Trigonometric Functions", SIGNUM 18, 1983:
// of the product of x's 24 digits and 2/π only the 96 binary digits below 4 are computed, since
// those above are full turns.
fn reduced_(x: f32, turn: ptr<function, i32>) -> f32 {
  // 32 zeros, and 2/π.
  var digits = array<u32, 8>(
    0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u, 0xdb629599u, 0x3c439041u, 0xfe5163abu,
  );
  let bits = bitcast<u32>(x);
  let mantissa = (bits & 0x7fffffu) | 0x800000u;
  // x is mantissa · 2^(exponent - 150): digits of 2/π above this one make full turns.
  let digit = ((bits >> 23u) & 255u) - 120u;
  let word = min(digit / 32u, 4u);
  let shift = digit % 32u;
  var window = array<u32, 3>();
  for (var i = 0u; i < 3u; i++) {
    // Twice, since by 32 nothing is shifted.
    window[i] = (digits[word + i] << shift) | ((digits[word + i + 1u] >> (31u - shift)) >> 1u);
  }
  let lowest = wide_(mantissa, window[2]);
  let middle = wide_(mantissa, window[1]);
  let second = middle.y + lowest.x;
  let first = mantissa * window[0] + middle.x + select(0u, 1u, second < lowest.x);
  // Two digits of quarter turns, then those of a fraction of one, of which half and more counts as
  // one taken too many.
  let above = (first << 2u) | (second >> 30u);
  let below = (second << 2u) | (lowest.y >> 30u);
  let over = above >= 0x80000000u;
  let share = f32(select(above, ~above, over)) * 2.3283064e-10 +
    f32(select(below, ~below, over)) * 5.4210109e-20;
  let left = select(share, -share, over) * 1.5707964;
  let n = i32((first >> 30u) + select(0u, 1u, over));
  let negative = x < 0.0;
  *turn = select(n, -n, negative);
  return select(left, -left, negative);
}

// The product of two words, the upper word first.
fn wide_(a: u32, b: u32) -> vec2u {
  let lower = (a & 0xffffu) * (b & 0xffffu);
  let one = (a >> 16u) * (b & 0xffffu) + (lower >> 16u);
  let another = (a & 0xffffu) * (b >> 16u) + (one & 0xffffu);
  return vec2u(
    (a >> 16u) * (b >> 16u) + (one >> 16u) + (another >> 16u),
    (another << 16u) | (lower & 0xffffu),
  );
}

// The normal distribution's share below x, to a relative 3e-7 also far below 0. With z = |x| / √2
// it is half of erfc(z) = exp(-z²) f(z); f was fitted in t = 1 / (1 + z / 2) for z up to 9.5, least
// relative error first.
fn normal_(x: f32) -> f32 {
  let z = abs(x) * 0.7071067811865476;
  let t = 1.0 / (1.0 + 0.5 * z);
  let inner = 0.202074349 + t * (-0.0251889079 + t * (0.275995195 +
    t * (-0.485399187 + t * (0.283709705 - t * 0.0588924028))));
  let outer = 0.282087684 + t * (0.28235361 + t * (0.243259937 + t * inner));
  let tail = 0.5 * t * outer * exp(-z * z);
  return select(tail, 1.0 - tail, x > 0.0);
}

// x to a power, as C's pow has it, where WGSL's is loose or undefined: for 0, below 0, and where
// one is infinite.
fn pow_(x: f32, power: f32) -> f32 {
  let size = abs(x);
  let is_integer = round(power) == power; // an infinite power too, which is even
  let odd = is_integer && fract(abs(power) * 0.5) == 0.5;
  let endless = abs(power) == infinity_();
  let ends = size == 0.0 || !is_finite_(size) || endless;
  // To 0 or to infinity: of a power that is endless by whether its base is above 1.
  let grows = select((size > 0.5) == (power > 0.0), (size > 1.0) == (power > 0.0), endless);
  let y = select(power_(size, power), select(0.0, infinity_(), grows), ends);
  let negative = (bitcast<u32>(x) >> 31u) == 1u;
  let real = x >= 0.0 || is_integer || !is_finite_(x);
  let known = select(nan_(), select(y, -y, negative && odd), real);
  let one = power == 0.0 || x == 1.0 || (endless && size == 1.0);
  return select(nan_or_(x, nan_or_(power, known)), 1.0, one);
}

// x^power of finite numbers, x above 0. With x = m 2^e, m near 1, it is 2^(power e + power log₂ m):
// the first term is computed in two parts, since the integer before the point of a rounded one
// would take the digits behind it.
fn power_(x: f32, power: f32) -> f32 {
  let bits = bitcast<u32>(x) + 0x4afb0du; // from √2 on to the next power of 2
  let e = f32(i32(bits >> 23u) - 127);
  let m = bitcast<f32>(bitcast<u32>(x) - ((bits >> 23u) - 127u) * 0x800000u);
  let head = bitcast<f32>(bitcast<u32>(power) & 0xfffff000u);
  let log = power * log2(m);
  let integer = clamp(round(power * e + log), -252.0, 252.0);
  let rest = (head * e - integer) + ((power - head) * e + log);
  let half = round(integer * 0.5);
  return exp2(clamp(rest, -1.0, 1.0)) * twos_(half) * twos_(integer - half);
}

// 2 to an integer within ±126.
fn twos_(power: f32) -> f32 {
  return bitcast<f32>(u32(i32(power) + 127) << 23u);
}

fn gelu_tanh_derivative_(x: f32) -> f32 {
  // Beyond ±30 it is 0 or 1, and the cubes would overflow.
  let v = clamp(x, -30.0, 30.0);
  let u = 1.5957691216057308 * (v + 0.044715 * v * v * v);
  let slope = 1.5957691216057308;
  return nan_or_(x, sigmoid_(u) * (1.0 + sigmoid_(-u) * slope * (v + 0.134145 * v * v * v)));
}

// Three random words from three: pcg3d of Jarzynski and Olano, "Hash Functions for GPU Rendering",
// JCGT 9(3), 2020. The twin of hash3() in tensor/random.ts.
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
