/**
 * Paths as users type them.
 *
 * @module
 */

import { resolve } from "node:path";

/** The path that the user meant: relative ones begin where the command was typed, not where its task runs. */
export function userPath(path: string): string {
  return resolve(Deno.env.get("INIT_CWD") ?? ".", path);
}
