/**
 * What the environment says of the hub. The variables mean what they mean to Python's
 * `huggingface_hub`.
 *
 * @module
 */

import { join } from "node:path";
import { userPath } from "../system/user_path.ts";

const named = (name: string): string | undefined => Deno.env.get(name) || undefined;

const home = (): string => named("HOME") ?? named("USERPROFILE") ?? ".";

/** The path in a variable. `~` and `$NAME` in it are replaced, as a shell does. */
function pathIn(variable: string): string | undefined {
  const path = named(variable)?.replace(/^~(?=$|[/\\])/, home)
    .replace(/\$(?:(\w+)|\{(\w+)\})/g, (text, bare, braced) => {
      try {
        return Deno.env.get(bare ?? braced) ?? text;
      } catch {
        throw new Error(
          `Cannot use ${variable}: ${text} in it may not be read here, write its value`,
        );
      }
    });
  return path && userPath(path);
}

/** Where Hugging Face's libraries keep their files. */
function sharedDirectory(): string {
  return pathIn("HF_HOME") ??
    join(pathIn("XDG_CACHE_HOME") ?? join(home(), ".cache"), "huggingface");
}

/** The directory of a repository in the cache. */
export function cacheDirectory(id: string): string {
  const root = pathIn("HF_HUB_CACHE") ?? pathIn("HUGGINGFACE_HUB_CACHE") ??
    join(sharedDirectory(), "hub");
  return join(root, ["models", ...id.split("/")].join("--"));
}

/**
 * The URL of the hub.
 *
 * @throws {Error} If the environment gives one that cannot be used.
 */
export function endpointOf(): string {
  const endpoint = (named("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, "");
  if (/^https?:\/\/./.test(endpoint) && URL.canParse(endpoint)) return endpoint;
  throw new Error(`Cannot use the hub: HF_ENDPOINT is "${endpoint}", it must be an http(s) URL`);
}

/** Whether a variable says yes. */
export function isOn(variable: string): boolean {
  return /^(1|on|yes|true)$/i.test(named(variable) ?? "");
}

/** The user's token: that of `HF_TOKEN`, or the one that `hf auth login` has stored. */
export async function hubToken(): Promise<string | undefined> {
  if (isOn("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return undefined;
  const token = named("HF_TOKEN")?.trim();
  if (token) return token;
  const path = pathIn("HF_TOKEN_PATH") ?? join(sharedDirectory(), "token");
  try {
    return (await Deno.readTextFile(path)).trim() || undefined;
  } catch {
    return undefined; // nobody has logged in, or not as this user
  }
}

/** Milliseconds that the hub may be silent: `HF_HUB_DOWNLOAD_TIMEOUT` is in seconds. */
export function longestSilence(): number {
  const seconds = Number(named("HF_HUB_DOWNLOAD_TIMEOUT") ?? 30);
  return 1000 * (seconds > 0 && seconds <= 86_400 ? seconds : 30);
}
