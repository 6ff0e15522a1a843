/**
 * Receives a file of the hub, and checks it by its hash.
 *
 * @module
 */

import { createHash, type Hash } from "node:crypto";
import { basename } from "node:path";
import type { Entry } from "./hub_api.ts";
import { UnreachableError } from "./hub_request.ts";

/** How often in a row a connection may break before anything arrives. */
const MOST_BREAKS = 3;

/** Git's hash of a file, but for its content. */
function gitHash(size: number): Hash {
  return createHash("sha1").update(`blob ${size}\0`);
}

/**
 * Whether a file of the cache still is what its name says. The blob of a small file is named by
 * Git's hash; the hash of a large one takes too long.
 */
export async function isSound(path: string): Promise<boolean> {
  const hash = basename(await Deno.realPath(path));
  if (!/^[0-9a-f]{40}$/.test(hash)) return true; // large, or not linked, as on Windows
  const bytes = await Deno.readFile(path);
  return gitHash(bytes.length).update(bytes).digest("hex") === hash;
}

/**
 * Receives the rest of a file whose first bytes an earlier process may have received. A connection
 * that breaks is made again, from where it broke.
 *
 * @param request Requests the file from a byte on. The answer may be the whole file.
 * @throws {Error} If the file does not have the listed size and hash. Nothing of it is kept.
 */
export async function receive(
  { path, size, oid, lfs }: Entry,
  file: Deno.FsFile,
  request: (from: number) => Promise<Response>,
  onBytes: (count: number) => void,
): Promise<void> {
  // Small files have a Git hash, large files a SHA-256 hash.
  const digest = lfs ? createHash("sha256") : gitHash(size);
  let received = 0;
  const add = (chunk: Uint8Array) => {
    digest.update(chunk);
    received += chunk.length;
    onBytes(chunk.length);
  };
  if ((await file.stat()).size > size) await file.truncate();
  const kept = new Uint8Array(2 ** 20);
  for (let count = await file.read(kept); count; count = await file.read(kept)) {
    add(kept.subarray(0, count));
  }
  for (let breaks = 0; received < size;) {
    const before = received;
    try {
      const response = await request(received);
      let skipped = response.status === 206 ? 0 : received;
      for await (const chunk of response.body ?? []) {
        const rest = chunk.subarray(Math.min(skipped, chunk.length));
        skipped -= chunk.length - rest.length;
        for (let at = 0; at < rest.length;) at += await file.write(rest.subarray(at));
        add(rest);
        if (received > size) break; // it may never end
      }
      if (received === before) break; // it ended, and is too short
    } catch (error) {
      const isBroken = error instanceof TypeError || error instanceof UnreachableError;
      breaks = received > before ? 0 : breaks + 1;
      if (!isBroken) throw error;
      if (received === 0 || breaks === MOST_BREAKS) {
        if (error instanceof UnreachableError) throw error;
        throw new UnreachableError(`Cannot fetch ${path}: the connection broke`);
      }
      await new Promise((resolve) => setTimeout(resolve, 1000 * breaks));
    }
  }
  if (received === size && digest.digest("hex") === (lfs?.oid ?? oid)) return;
  await file.truncate();
  throw new Error(`Cannot fetch ${path}: what arrived is not what the hub lists, try again`);
}
