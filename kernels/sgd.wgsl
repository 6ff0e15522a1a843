// d = g + weight_decay p; momentum ← μ momentum + gain d; p ← p - rate step, where step is
// momentum, for Nesterov's d + μ momentum, without momentum d. x is g, y is p; the state has the
// momenta, in the order of the parameters; without MOMENTUM it has no elements. A template for the
// m-th parameter of many.wgsl. Source: torch.optim.SGD.

fn work_${m}(group: u32, lane: u32) {
  let end = min(256u * (group + 1u), sizes.count_${m});
  for (var i = 256u * group + lane; i < end; i += 64u) {
    let p = y_${m}[i];
    // What is switched off is left out: 0 times an infinite parameter would be NaN.
    let d = x_${m}[i] * factor[0] + select(0.0, sizes.weight_decay * p, sizes.weight_decay > 0.0);
    var step = d;
    if (MOMENTUM) {
      let momentum = sizes.mu * state[sizes.start_${m} + i] + sizes.gain * d;
      state[sizes.start_${m} + i] = momentum;
      step = select(momentum, d + sizes.mu * momentum, NESTEROV);
    }
    y_${m}[i] = p - sizes.rate * step;
  }
}
