/**
 * Resolves the paths that users type.
 *
 * @module
 */

import { resolve } from "node:path";

/**
 * The absolute path that the user meant. A relative path starts at the directory where the user
 * typed the command, which `deno task` passes in `INIT_CWD`. The task itself may run in another
 * directory.
 */
export function userPath(path: string): string {
  return resolve(Deno.env.get("INIT_CWD") ?? ".", path);
}
