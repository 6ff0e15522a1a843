// Where rows lie whose op does not say.
fn row_start_(row: u32) -> u32 {
  return row * sizes.cols;
}

fn row_end_(row: u32) -> u32 {
  return (row + 1u) * sizes.cols;
}
