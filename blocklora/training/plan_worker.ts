/**
 * Plans memory in a worker, whose dry device leaves that of the process alone.
 *
 * @module
 */

import type { Planned, PlanRequest } from "../cost/memory_plan.ts";
import { planStep, type StepOptions } from "./step.ts";

/** What the worker answers. */
export type Answer = { readonly planned: Planned } | { readonly error: string };

const worker = self as unknown as {
  onmessage: (event: MessageEvent<PlanRequest<StepOptions>>) => void;
  postMessage(answer: Answer): void;
};

worker.onmessage = ({ data }) => {
  try {
    worker.postMessage({ planned: planStep(data) });
  } catch (error) {
    worker.postMessage({ error: (error as Error).message });
  }
};
