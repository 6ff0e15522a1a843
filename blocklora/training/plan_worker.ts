/**
 * Plans memory in a worker, whose dry device leaves that of the process alone.
 *
 * @module
 */

import { planMemory, type Planned, type PlanRequest } from "../cost/memory_plan.ts";

/** What the worker answers. */
export type Answer = { readonly planned: Planned } | { readonly error: string };

const worker = self as unknown as {
  onmessage: (event: MessageEvent<PlanRequest>) => void;
  postMessage(answer: Answer): void;
};

worker.onmessage = ({ data }) => {
  try {
    worker.postMessage({ planned: planMemory(data) });
  } catch (error) {
    worker.postMessage({ error: (error as Error).message });
  }
};
