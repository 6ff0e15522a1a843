// d = g + l2 p; mean ← β₁ mean + (1 - β₁) d; square ← β₂ square + (1 - β₂) d²; p ← p - decay p -
// rate mean / (√square · correction + epsilon). x is g, y is p; the state has all means, then all
// squares, then where AMSGRAD the largest of them, in the order of the parameters. A template for
// the m-th parameter of many.wgsl. Source: Kingma and Ba, arXiv 1412.6980, algorithm 1; decay:
// Loshchilov and Hutter, arXiv 1711.05101, algorithm 2.

fn work_${m}(group: u32, lane: u32) {
  let end = min(256u * (group + 1u), sizes.count_${m});
  for (var i = 256u * group + lane; i < end; i += 64u) {
    let at = sizes.start_${m} + i;
    let p = y_${m}[i];
    // What is switched off is left out: 0 times an infinite parameter would be NaN.
    let d = x_${m}[i] * factor[0] + select(0.0, sizes.l2 * p, sizes.l2 > 0.0);
    let mean = sizes.beta1 * state[at] + sizes.one_minus_beta1 * d;
    var square = sizes.beta2 * state[at + sizes.total] + sizes.one_minus_beta2 * d * d;
    state[at] = mean;
    state[at + sizes.total] = square;
    if (AMSGRAD) {
      square = maximum_(state[at + 2u * sizes.total], square);
      state[at + 2u * sizes.total] = square;
    }
    // One subtraction: `p (1 - decay)` would round a decay of 1e-6 to one or two digits.
    let decay = select(0.0, sizes.decay * p, sizes.decay > 0.0);
    y_${m}[i] = p - (decay + sizes.rate * mean / (sqrt(square) * sizes.correction + sizes.epsilon));
  }
}
