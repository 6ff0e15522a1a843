/** Waits for signals, with a thread that is blocked for a while after the first of them. */

import { catchInterrupts } from "../blocklora/system/interrupts.ts";

using _interrupt = catchInterrupts(() => {
  console.log("first, and the thread is blocked");
  // As in a wait for the GPU. The second signal and the timers are due together after it.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
  setTimeout(() => console.log("still here"), 100);
});
console.log("ready");
await new Promise((resolve) => setTimeout(resolve, 1e6));
