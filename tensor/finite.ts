/**
 * Finds what is not a finite number.
 *
 * @module
 */

/** The index of the first element that is NaN or infinite, or -1 if all are finite. */
export function firstNonFinite(values: ArrayLike<number>): number {
  for (let i = 0; i < values.length; i++) {
    if (values[i] - values[i] !== 0) return i;
  }
  return -1;
}
