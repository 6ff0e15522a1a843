// sums[start + 64 w + l] = times Σ x[i]² over every 64th of the 1024 elements of workgroup w, from
// the l-th on. A template for the m-th tensor of many.wgsl.

fn work_${m}(group: u32, lane: u32) {
  let end = min(1024u * (group + 1u), sizes.count_${m});
  for (var first = 1024u * group; first < end; first += 1024u) {
    var sum = 0.0;
    for (var i = first + lane; i < end; i += 64u) {
      sum += x_${m}[i] * x_${m}[i];
    }
    sums[sizes.start_${m} + 64u * group + lane] = sizes.times_${m} * sum;
  }
}
