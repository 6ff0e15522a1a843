/**
 * Regular expressions that configurations of adapters have for the names of layers.
 *
 * @module
 */

/** The most repetitions of a pattern. With n of them, a name of k letters takes up to kⁿ / n! steps. */
const MOST_REPETITIONS = 4;

/**
 * Why a regular expression, which must be valid, could take forever on a name, or null if it could
 * not. JavaScript matches by trial and error: if what is repeated contains a repetition or
 * alternatives, it may try exponentially many ways.
 */
export function flawOf(source: string): string | null {
  // For each open group, whether it contains a repetition or alternatives.
  const groups = [false];
  let [repetitions, closed] = [0, false];
  for (let at = 0; at < source.length; at++) {
    const letter = source[at];
    const wasClosed = closed;
    closed = false;
    if (letter === "\\") at++;
    else if (letter === "[") at = endOfClass(source, at);
    else if (letter === "(") groups.push(false);
    else if (letter === "|") groups[groups.length - 1] = true;
    else if (letter === ")") {
      closed = groups.pop()!;
      if (closed) groups[groups.length - 1] = true;
    } else if (letter === "*" || letter === "+" || /^\{\d+,?\d*\}/.test(source.slice(at))) {
      if (wasClosed) return "repeats a group that contains a repetition or alternatives";
      repetitions++;
      groups[groups.length - 1] = true;
    }
  }
  return repetitions > MOST_REPETITIONS ? `has more than ${MOST_REPETITIONS} repetitions` : null;
}

/** The index of the bracket that closes a character class. */
function endOfClass(source: string, start: number): number {
  let at = start + 1;
  while (at < source.length && source[at] !== "]") at += source[at] === "\\" ? 2 : 1;
  return at;
}
