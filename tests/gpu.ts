/**
 * Tests that use the GPU. Without an adapter they fail: a skipped test proves nothing.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { init, settle } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";
import { flush } from "../tensor/queue.ts";

/** Registers a test that starts the engine, and fails if it leaves a buffer live or an error unreported. */
export function gpuTest(name: string, body: (t: Deno.TestContext) => void | Promise<void>): void {
  Deno.test(name, async (t) => {
    await init();
    const before = memory().liveBuffers;
    await body(t);
    flush();
    await settle();
    assertEquals(memory().liveBuffers, before, "live buffers after the test, and before it");
  });
}
