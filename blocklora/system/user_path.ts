/**
 * Paths as users type them.
 *
 * @module
 */

import { resolve } from "node:path";

/**
 * The path that the user meant. A relative one begins where the command was typed, not where its
 * task runs: the task tells it in `INIT_CWD`.
 */
export function userPath(path: string): string {
  return resolve(Deno.env.get("INIT_CWD") ?? ".", path);
}
