// parts[position + 64 w + l] = times Σ x[i]² over every 64th of the 1024 elements of workgroup w, from the l-th on.
fn work_(group: u32, lane: u32) {
  let end = min(1024u * (group + 1u), count_);
  for (var first = 1024u * group; first < end; first += 1024u) {
    var sum = 0.0;
    for (var i = first + lane; i < end; i += 64u) {
      sum += x_[i] * x_[i];
    }
    parts[place_ + 64u * group + lane] = times_ * sum;
  }
}
